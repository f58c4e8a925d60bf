//! Every engine this processor can run against the float64 reference, and exactly on integers.

use super::*;
use crate::reference::{agree, matmul_f64};

const SHAPES: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (1, 50, 7),
    (2, 1, 300),
    (17, 33, 65),
    (9, 48, 384),
    (10, 49, 385),
    (47, 16, 2),
    (64, 64, 64),
    (130, 97, 801),
    (521, 30, 33),
    (700, 101, 400),
    (1000, 1001, 999),
    (1060, 2400, 40),
];

/// Seeded, uniform enough for tests: values of −64 … 64, as integers or as fractions.
fn numbers(seed: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) % 129) as f32 * scale - 64.0 * scale
        })
        .collect()
}

fn engines() -> Vec<&'static Engine<f32>> {
    let mut all = vec![&portable::F32];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(&avx2::F32);
        }
        if is_x86_feature_detected!("avx512f") {
            all.push(&avx512::F32);
        }
    }
    all
}

fn product(engine: &Engine<f32>, threads: usize, shape: Shape, a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut pool = Pool::new(threads, &[]).unwrap();
    let mut workspace = Workspace::new(threads).unwrap();
    // Old contents must not matter, not even NaN.
    let mut c = vec![f32::NAN; shape.m * shape.n];
    multiply(engine, &mut pool, &mut workspace, shape, a, b, &mut c).unwrap();
    c
}

#[test]
fn every_engine_agrees_with_float64_on_awkward_shapes() {
    for (m, n, k) in SHAPES {
        let (a, b) = (numbers(1, m * k, 0.013), numbers(2, k * n, 0.017));
        let want = matmul_f64(m, n, k, &a, &b);
        for engine in engines() {
            let c = product(engine, 2, Shape { m, n, k }, &a, &b);
            agree(&c, &want, &a, &b, k)
                .unwrap_or_else(|why| panic!("{} {m}x{n}x{k}: {why}", engine.name));
        }
    }
}

#[test]
fn integers_give_the_exact_product_on_every_engine() {
    for (m, n, k) in SHAPES {
        let (a, b) = (numbers(3, m * k, 1.0), numbers(4, k * n, 1.0));
        let want: Vec<f32> = matmul_f64(m, n, k, &a, &b)
            .iter()
            .map(|&x| x as f32)
            .collect();
        for engine in engines() {
            let c = product(engine, 2, Shape { m, n, k }, &a, &b);
            let same = c.iter().zip(&want).all(|(c, w)| (c - w).abs() <= 0.0);
            assert!(same, "{} {m}x{n}x{k}", engine.name);
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let shape = Shape {
        m: 333,
        n: 500,
        k: 777,
    };
    let (a, b) = (
        numbers(5, shape.m * shape.k, 0.013),
        numbers(6, shape.k * shape.n, 0.017),
    );
    for engine in engines() {
        let one = product(engine, 1, shape, &a, &b);
        for threads in [2, 3, 4, 6] {
            let many = product(engine, threads, shape, &a, &b);
            let same = one
                .iter()
                .zip(&many)
                .all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same, "{} with {threads} threads", engine.name);
        }
    }
}

#[test]
fn depth_zero_gives_zeros_and_empty_shapes_give_nothing() {
    for engine in engines() {
        let c = product(engine, 2, Shape { m: 3, n: 5, k: 0 }, &[], &[]);
        assert!(c.len() == 15 && c.iter().all(|c| c.to_bits() == 0));
        assert!(product(engine, 2, Shape { m: 0, n: 5, k: 2 }, &[], &[0.0; 10]).is_empty());
    }
}

#[test]
fn nothing_is_written_outside_the_matrix() {
    let (m, n, k) = (19, 53, 20);
    let (a, b) = (numbers(7, m * k, 1.0), numbers(8, k * n, 1.0));
    for engine in engines() {
        let mut pool = Pool::new(2, &[]).unwrap();
        let mut workspace = Workspace::new(2).unwrap();
        let mut guarded = vec![123.0f32; m * n + 200];
        let c = &mut guarded[100..100 + m * n];
        multiply(
            engine,
            &mut pool,
            &mut workspace,
            Shape { m, n, k },
            &a,
            &b,
            c,
        )
        .unwrap();
        let outside = guarded[..100].iter().chain(&guarded[100 + m * n..]);
        assert!(
            outside.clone().all(|x| x.to_bits() == 123.0f32.to_bits()),
            "{}",
            engine.name
        );
    }
}

#[test]
fn every_grid_of_threads_covers_c_exactly_once() {
    for (m, n) in [
        (1, 1),
        (9, 48),
        (100, 7),
        (7, 1000),
        (333, 500),
        (2048, 2048),
    ] {
        for threads in 1..=13 {
            let split = Split::of(Shape { m, n, k: 1 }, threads, 9, 48);
            let parts: Vec<Part> = (0..threads)
                .filter_map(|thread| split.part(thread))
                .collect();
            let covered: usize = parts
                .iter()
                .map(|part| part.rows.len() * part.cols.len())
                .sum();
            assert_eq!(covered, m * n, "{m}x{n} over {threads}");
            for (i, x) in parts.iter().enumerate() {
                for y in &parts[..i] {
                    let rows = x.rows.start < y.rows.end && y.rows.start < x.rows.end;
                    let cols = x.cols.start < y.cols.end && y.cols.start < x.cols.end;
                    assert!(!(rows && cols), "{m}x{n} over {threads}: parts overlap");
                }
            }
        }
    }
}

#[test]
fn blocks_and_panels_fit_their_memory() {
    fn fits<T>(engine: &Engine<T>) {
        let depth = engine.block_depth.next_multiple_of(engine.grain);
        let rows = engine.block_rows.next_multiple_of(engine.tile_rows);
        let block = rows * depth * size_of::<T>();
        assert!(block <= PANELS_AT_BYTES, "{}", engine.name);
        let panels = depth * BLOCK_COLS * size_of::<T>();
        assert!(PANELS_AT_BYTES + panels <= ARENA_BYTES, "{}", engine.name);
    }
    engines().into_iter().for_each(fits);
    #[cfg(target_arch = "x86_64")]
    fits(&avx512::BF16);
}

#[test]
fn lengths_that_do_not_fit_are_named() {
    let mut pool = Pool::new(1, &[]).unwrap();
    let mut workspace = Workspace::new(1).unwrap();
    let shape = Shape { m: 2, n: 3, k: 4 };
    let refused = matmul_f32(
        &mut pool,
        &mut workspace,
        shape,
        &[0.0; 8],
        &[0.0; 11],
        &mut [0.0; 6],
    );
    let text = refused.unwrap_err().to_string();
    assert!(
        text.starts_with("matrix b holds 11 values, shape 2x3x4 needs 12"),
        "{text}"
    );
    let huge = Shape {
        m: usize::MAX,
        n: 2,
        k: 2,
    };
    let refused = matmul_f32(&mut pool, &mut workspace, huge, &[], &[], &mut []);
    assert!(matches!(refused, Err(MatmulError::TooLarge(_))));
    let mut wide = Pool::new(2, &[]).unwrap();
    let refused = matmul_f32(
        &mut wide,
        &mut workspace,
        shape,
        &[0.0; 8],
        &[0.0; 12],
        &mut [0.0; 6],
    );
    assert!(matches!(
        refused,
        Err(MatmulError::Workspace {
            made: 1,
            threads: 2
        })
    ));
}

#[test]
fn bf16_is_exact_on_integers_where_it_runs_and_refused_where_not() {
    let mut pool = Pool::new(2, &[]).unwrap();
    let mut workspace = Workspace::new(2).unwrap();
    for (m, n, k) in SHAPES {
        let (a, b) = (numbers(9, m * k, 1.0), numbers(10, k * n, 1.0));
        let narrow = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
        let mut c = vec![f32::NAN; m * n];
        let shape = Shape { m, n, k };
        let done = matmul_bf16(
            &mut pool,
            &mut workspace,
            shape,
            &narrow(&a),
            &narrow(&b),
            &mut c,
        );
        if !has_bf16() {
            assert!(matches!(done, Err(MatmulError::NoBf16)));
            println!("skipped: this processor has no avx512_bf16");
            return;
        }
        done.unwrap();
        let want = matmul_f64(m, n, k, &a, &b);
        assert!(
            c.iter()
                .zip(&want)
                .all(|(&c, &w)| (f64::from(c) - w).abs() <= 0.0),
            "{m}x{n}x{k}"
        );
    }
}
