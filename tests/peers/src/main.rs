//! Compares this project's CPU matmul with faer, OpenBLAS and matrixmultiply on the same inputs.
//!
//! `peers matmul [THREADS [MxNxK ...]]` runs the contenders in turn, round after round, and prints medians
//! and bests and the ratio to the fastest peer; the ratio is what counts, as the machine's clock
//! wanders between rounds. `peers bf16` compares this project's bf16 with its own f32 in the same way.
//! Decides nothing. Refuses a contender whose result is not the exact one.
//! OpenBLAS is loaded at run time and left out, with the reason, where it is not installed.

mod blas;

use faer::linalg::matmul::matmul as faer_matmul;
use faer::{Accum, MatMut, MatRef, Par};
use half::bf16;
use hallmark_kernels::cpu::matmul::{Shape, Workspace, engine_name, matmul_bf16, matmul_f32};
use hallmark_kernels::cpu::pool::Pool;
use hallmark_kernels::timer::now_ns;
use std::error::Error;
use std::time::Duration;

/// Rounds of every contender per shape.
const ROUNDS: usize = 11;
/// Each measurement repeats the product until it has done about this much work.
const WORK_FLOP: usize = 8_000_000_000;
/// Between two contenders: thread pools that wait in a spin shall have gone to sleep.
const PAUSE: Duration = Duration::from_millis(60);
/// Before each measurement: threads that woke up on one core shall have been spread.
const SETTLE_NS: u64 = 100_000_000;
/// A square, the products of a training step, and shapes that fit no tile.
const SHAPES: [(usize, usize, usize); 6] = [
    (2048, 2048, 2048),
    (1024, 1024, 1024),
    (512, 1536, 512),
    (512, 2048, 512),
    (1000, 1001, 999),
    (4096, 4096, 4096),
];

/// Computes C from A and B.
type Product<'a> = dyn FnMut(Shape, &[f32], &[f32], &mut [f32]) -> Result<(), Box<dyn Error>> + 'a;

struct Contender<'a> {
    name: String,
    run: Box<Product<'a>>,
    rates: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let within = match args.next().as_deref() {
        Some("matmul") => false,
        Some("bf16") => true,
        _ => return Err("usage: peers matmul|bf16 [THREADS [MxNxK ...]]".into()),
    };
    let threads = match args.next() {
        Some(text) => text.parse()?,
        None => std::thread::available_parallelism()?.get(),
    };
    // SAFETY: no other thread exists yet. Both libraries read these once, when they start.
    unsafe {
        std::env::set_var("MATMUL_NUM_THREADS", threads.to_string());
        std::env::set_var("OPENBLAS_CORETYPE", "SKYLAKEX");
    }
    let named = args
        .map(|text| shape(&text))
        .collect::<Result<Vec<_>, _>>()?;
    let shapes = if named.is_empty() {
        SHAPES.to_vec()
    } else {
        named
    };
    let mut contenders = if within {
        own_types(threads)?
    } else {
        contenders(threads)?
    };
    println!("{threads} threads, {ROUNDS} rounds, GFLOP/s, row-major");
    for (m, n, k) in shapes {
        compare(&mut contenders, Shape { m, n, k })?;
    }
    Ok(())
}

/// Reads `MxNxK`.
fn shape(text: &str) -> Result<(usize, usize, usize), Box<dyn Error>> {
    let parts = text
        .split('x')
        .map(str::parse)
        .collect::<Result<Vec<usize>, _>>()?;
    let [m, n, k] = parts[..] else {
        return Err(format!("`{text}` is no shape; write 512x1536x512").into());
    };
    Ok((m, n, k))
}

/// This project's bf16 first, then its f32.
fn own_types(threads: usize) -> Result<Vec<Contender<'static>>, Box<dyn Error>> {
    let (mut pool, mut workspace) = (Pool::new(threads, &[])?, Workspace::new(threads)?);
    let (mut a16, mut b16) = (Vec::new(), Vec::new());
    let bf16 = Contender {
        name: "hallmark bf16".to_owned(),
        run: Box::new(move |shape, a, b, c| {
            // Converted once a shape; the values are small integers, which bf16 holds exactly.
            if (a16.len(), b16.len()) != (a.len(), b.len()) {
                let convert = |from: &[f32]| from.iter().copied().map(bf16::from_f32).collect();
                (a16, b16) = (convert(a), convert(b));
            }
            Ok(matmul_bf16(
                &mut pool,
                &mut workspace,
                shape,
                &a16,
                &b16,
                c,
            )?)
        }),
        rates: Vec::new(),
    };
    let mut f32 = contenders(threads)?;
    f32.truncate(1);
    Ok(std::iter::once(bf16).chain(f32).collect())
}

/// This project first, then every peer that can be had.
fn contenders(threads: usize) -> Result<Vec<Contender<'static>>, Box<dyn Error>> {
    let mut list: Vec<Contender> = Vec::new();
    let mut add = |name: String, run| {
        list.push(Contender {
            name,
            run,
            rates: Vec::new(),
        })
    };
    let mut pool = Pool::new(threads, &[])?;
    let mut workspace = Workspace::new(threads)?;
    add(
        format!("hallmark ({})", engine_name()),
        Box::new(move |shape, a, b, c| Ok(matmul_f32(&mut pool, &mut workspace, shape, a, b, c)?)),
    );
    let par = if threads > 1 {
        Par::rayon(threads)
    } else {
        Par::Seq
    };
    add(
        "faer".to_owned(),
        Box::new(move |Shape { m, n, k }, a, b, c| {
            let (a, b) = (
                MatRef::from_row_major_slice(a, m, k),
                MatRef::from_row_major_slice(b, k, n),
            );
            faer_matmul(
                MatMut::from_row_major_slice_mut(c, m, n),
                Accum::Replace,
                a,
                b,
                1.0f32,
                par,
            );
            Ok(())
        }),
    );
    match blas::Blas::load(threads) {
        Ok(blas) => {
            let name = format!("OpenBLAS ({})", blas.core);
            add(
                name,
                Box::new(move |shape, a, b, c| blas.sgemm(shape, a, b, c)),
            );
        }
        Err(why) => println!("OpenBLAS left out: {why}; install libopenblas0-pthread"),
    }
    add(
        "matrixmultiply".to_owned(),
        Box::new(|Shape { m, n, k }, a, b, c| {
            let stride = |columns: usize| columns as isize;
            // SAFETY: the slices hold m×k, k×n and m×n values; `compare` allocates them so.
            unsafe {
                matrixmultiply::sgemm(
                    m,
                    k,
                    n,
                    1.0,
                    a.as_ptr(),
                    stride(k),
                    1,
                    b.as_ptr(),
                    stride(n),
                    1,
                    0.0,
                    c.as_mut_ptr(),
                    stride(n),
                    1,
                );
            }
            Ok(())
        }),
    );
    Ok(list)
}

fn compare(contenders: &mut [Contender], shape: Shape) -> Result<(), Box<dyn Error>> {
    let Shape { m, n, k } = shape;
    // Small integers: every order of summation gives the same bits.
    let integers = |count: usize, step: usize| -> Vec<f32> {
        (0..count)
            .map(|i| (i.wrapping_mul(step) >> 7 & 31) as f32 - 16.0)
            .collect()
    };
    let (a, b) = (
        integers(m * k, 2_654_435_761),
        integers(k * n, 2_246_822_519),
    );
    let flop = 2 * m * n * k;
    let repeats = WORK_FLOP.div_ceil(flop);
    let mut exact: Option<Vec<f32>> = None;
    let mut c = vec![0.0f32; m * n];
    for contender in contenders.iter_mut() {
        contender.rates.clear();
        c.fill(f32::NAN);
        (contender.run)(shape, &a, &b, &mut c)?;
        let want = exact.get_or_insert_with(|| c.clone());
        if c.iter()
            .zip(&*want)
            .any(|(x, y)| x.to_bits() << 1 != y.to_bits() << 1)
        {
            return Err(format!(
                "{} differs on {shape}: integers must come out exact",
                contender.name
            )
            .into());
        }
    }
    for round in 0..ROUNDS {
        for turn in 0..contenders.len() {
            let next = (turn + round) % contenders.len();
            let contender = &mut contenders[next];
            std::thread::sleep(PAUSE);
            let woken_ns = now_ns();
            while now_ns() - woken_ns < SETTLE_NS {
                (contender.run)(shape, &a, &b, &mut c)?;
            }
            let start_ns = now_ns();
            for _ in 0..repeats {
                (contender.run)(shape, &a, &b, &mut c)?;
            }
            let elapsed_ns = now_ns() - start_ns;
            contender
                .rates
                .push((flop * repeats) as f64 / elapsed_ns as f64);
        }
    }
    println!("\n{shape}");
    println!("  {:28} {:>8} {:>8}", "", "median", "best");
    for contender in contenders.iter() {
        println!(
            "  {:28} {:8.1} {:8.1}",
            contender.name,
            median(&contender.rates),
            best(&contender.rates)
        );
    }
    let Some((own, peers)) = contenders.split_first() else {
        return Ok(());
    };
    let fastest =
        |of: fn(&[f64]) -> f64| peers.iter().map(|peer| of(&peer.rates)).fold(0.0, f64::max);
    println!(
        "  first / fastest other        {:8.3} {:8.3}",
        median(&own.rates) / fastest(median),
        best(&own.rates) / fastest(best)
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
