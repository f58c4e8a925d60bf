//! What the WGSL engine promises, on every adapter of the machine; the shaders also without one.

use super::gpu::{Gpu, SETUP_LIMIT};
use super::pipelines::{self, Kernel, Kernels, Source, Variant};
use super::{Options, Wgpu, adapter, encode};
use crate::audit::{self, Stream};
use crate::backend::{Backend, Device, PreparedStep};
use crate::collective::host::{HostCollective, Region};
use crate::collective::{LEAST_PATIENCE, exact};
use crate::error::KernelError;
use crate::reference::{agree, matmul_f64};
use crate::timer::{Timer, now_ns};
use crate::work::{StepDone, Submission, Work, bucket_layout};
use ::wgpu::{Buffer, BufferUsages as Usage};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{AuditSeed, Bucket, Dtype, Gemm, Parts, StepSpec};
use std::sync::Arc;
use std::time::Duration;

const ODD: [Gemm; 6] = [
    Gemm::new(1, 1, 1),
    Gemm::new(17, 33, 65),
    Gemm::new(3, 4, 8),
    Gemm::new(129, 68, 36),
    Gemm::new(130, 260, 17),
    Gemm::new(64, 127, 1000),
];

/// Every adapter with both matmuls; none prints why, or fails where everything is required.
fn gpus() -> Vec<Arc<Gpu>> {
    let adapters = adapter::enumerate();
    if adapters.is_empty() {
        let why = "no Vulkan, Metal or DX12 adapter here (Debian: mesa-vulkan-drivers)";
        let required = std::env::var("HALLMARK_REQUIRE_ALL").is_ok_and(|v| v == "1");
        assert!(!required, "{why}");
        eprintln!("not tested: {why}");
    }
    let both = [Variant::Direct, Variant::Tiled];
    let open = |adapter: &::wgpu::Adapter, variant| {
        let options = Options {
            variant: Some(variant),
            host_clock: false,
        };
        Arc::new(Gpu::open(adapter, "wgpu-test", options).unwrap())
    };
    adapters
        .iter()
        .flat_map(|a| both.map(|v| open(a, v)))
        .collect()
}

fn devices(options: Options) -> Vec<Box<dyn Device>> {
    let backend = Wgpu { options };
    match backend.list() {
        Ok(found) => found.iter().map(|d| backend.open(d).unwrap()).collect(),
        Err(absent) => {
            assert!(gpus().is_empty(), "{}", absent.why);
            Vec::new()
        }
    }
}

fn upload(gpu: &Gpu, bytes: &[u8]) -> Buffer {
    let usage = Usage::STORAGE | Usage::UNIFORM | Usage::COPY_DST | Usage::COPY_SRC;
    let buffer = gpu.buffer("test", bytes.len() as u64, usage);
    gpu.queue.write_buffer(&buffer, 0, bytes);
    buffer
}

fn params(gpu: &Gpu, words: [u32; 8]) -> Buffer {
    upload(gpu, bytemuck::cast_slice(&words))
}

fn run(gpu: &Gpu, kernel: &Kernel, buffers: &[&Buffer], groups: [u32; 2]) {
    let bind = kernel.bind(&gpu.device, buffers);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &bind, &[0]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
    }
    gpu.submit(Some(encoder.finish())).unwrap();
}

fn download<T: bytemuck::Pod>(gpu: &Gpu, buffer: &Buffer, count: usize) -> Vec<T> {
    let bytes = (count * size_of::<T>()) as u64;
    let host = gpu.buffer("host", bytes, Usage::MAP_READ | Usage::COPY_DST);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &host, 0, bytes.next_multiple_of(4));
    let index = gpu.submit(Some(encoder.finish())).unwrap();
    gpu.finish(&index, SETUP_LIMIT).unwrap();
    let read = |b: &[u8]| bytemuck::pod_collect_to_vec(&b[..bytes as usize]);
    gpu.read(&host, SETUP_LIMIT, read).unwrap()
}

/// Real numbers in −1..1 that need every bit of their type.
fn reals(count: u64, seed: u64) -> Vec<f32> {
    let unit = |i| f64::from(audit::hash(seed, Stream::A, 0, i)) / 2_147_483_648.0 - 1.0;
    (0..count as u32).map(|i| unit(i) as f32).collect()
}

fn multiply(gpu: &Gpu, dtype: Dtype, gemm: Gemm, a: &[f32], b: &[f32]) -> Vec<f32> {
    let store = |values: &[f32]| {
        if dtype == Dtype::F16 {
            let halves: Vec<u16> = values
                .iter()
                .map(|v| half::f16::from_f32(*v).to_bits())
                .collect();
            let mut bytes = bytemuck::cast_slice::<u16, u8>(&halves).to_vec();
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            upload(gpu, &bytes)
        } else {
            upload(gpu, bytemuck::cast_slice(values))
        }
    };
    let kernels = Kernels::new(gpu, dtype);
    let (kernel, groups) = kernels.matmul(gemm);
    let (a, b) = (store(a), store(b));
    let elements = gemm.elements()[2] as usize;
    let c = upload(gpu, bytemuck::cast_slice(&vec![f32::NAN; elements]));
    let shape = params(gpu, [gemm.m, gemm.n, gemm.k, 0, 0, 0, 0, 0]);
    run(gpu, kernel, &[&a, &b, &c, &shape], groups);
    download(gpu, &c, elements)
}

fn spec(gemms: Vec<Gemm>) -> StepSpec {
    StepSpec {
        dtype: Dtype::F32,
        gemms,
        buckets: Vec::new(),
        parameters: 5_001,
        memory: Bytes(70_000),
        audit_share: 1.0,
        operand_pairs: 2,
        seed: 0x5EED_0123_4567,
        audit_seed: Some(AuditSeed(0x0A0D_1700)),
        sweep: None,
    }
}

const ALL: Parts = Parts {
    gemms: true,
    buckets: true,
    optimizer: true,
    memory: true,
    within_node: false,
};

fn submission(seq: u64) -> Submission {
    Submission {
        seq,
        parts: ALL,
        stop: false,
    }
}

fn drain(step: &mut dyn PreparedStep) -> Vec<StepDone> {
    let mut done = Vec::new();
    while step.in_flight() > 0 {
        let retired = step.retire(Duration::from_secs(60)).unwrap();
        done.push(retired.expect("a step within a minute"));
    }
    done
}

#[test]
fn every_shader_is_valid_on_every_device_also_those_that_it_does_not_choose() {
    for gpu in gpus() {
        let check = |source: Source| {
            let scope = gpu.device.push_error_scope(::wgpu::ErrorFilter::Validation);
            drop(Kernel::new(&gpu.device, &source));
            let error = pollster::block_on(scope.pop());
            assert!(error.is_none(), "{}: {error:?}", source.label);
        };
        let has_f16 = gpu.device.features().contains(::wgpu::Features::SHADER_F16);
        let dtypes = [Dtype::F32, Dtype::F16].into_iter();
        for dtype in dtypes.filter(|d| has_f16 || *d == Dtype::F32) {
            check(pipelines::direct(dtype));
            check(pipelines::any_shape(dtype, Variant::Direct));
            check(pipelines::any_shape(dtype, Variant::Tiled));
            check(pipelines::fill(dtype));
        }
        check(pipelines::audit());
        check(pipelines::flip());
        check(pipelines::addend());
        check(pipelines::stream("copy"));
        check(pipelines::stream("triad"));
        check(pipelines::adamw());
    }
}

#[test]
fn both_matmuls_agree_with_float64_on_shapes_that_are_no_multiple_of_a_tile() {
    for gpu in gpus() {
        let mut shapes = ODD.to_vec();
        shapes.push(Gemm::new(1000, 1001, 999));
        for gemm in shapes {
            let [na, nb, _] = gemm.elements();
            let (a, b) = (reals(na, 1), reals(nb, 2));
            let c = multiply(&gpu, Dtype::F32, gemm, &a, &b);
            let (m, n, k) = (gemm.m as usize, gemm.n as usize, gemm.k as usize);
            let want = matmul_f64(m, n, k, &a, &b);
            agree(&c, &want, &a, &b, k).unwrap_or_else(|e| panic!("{gemm} {:?}: {e}", gpu.variant));
        }
    }
}

#[test]
fn f16_operands_accumulate_in_f32() {
    for gpu in gpus() {
        if !gpu.device.features().contains(::wgpu::Features::SHADER_F16) {
            eprintln!("not tested: {} has no f16", gpu.id);
            continue;
        }
        for gemm in ODD {
            let [na, nb, _] = gemm.elements();
            let round = |v: Vec<f32>| -> Vec<f32> {
                v.into_iter()
                    .map(|x| half::f16::from_f32(x).to_f32())
                    .collect()
            };
            let (a, b) = (round(reals(na, 3)), round(reals(nb, 4)));
            let c = multiply(&gpu, Dtype::F16, gemm, &a, &b);
            let (m, n, k) = (gemm.m as usize, gemm.n as usize, gemm.k as usize);
            let want = matmul_f64(m, n, k, &a, &b);
            agree(&c, &want, &a, &b, k).unwrap_or_else(|e| panic!("{gemm} {:?}: {e}", gpu.variant));
        }
    }
}

#[test]
fn operands_and_addends_have_the_same_bits_as_on_the_host() {
    for gpu in gpus() {
        let kernels = Kernels::new(&gpu, Dtype::F32);
        let count = 10_007_u32;
        let values = upload(&gpu, &vec![0; 4 * count as usize + 16]);
        let key = audit::key(77, Stream::B, 3);
        let record = params(&gpu, [count, key, 63, 0, 0, 0, 0, 0]);
        run(
            &gpu,
            &kernels.fill,
            &[&values, &record],
            [count.div_ceil(256), 1],
        );
        let mut want = vec![0.0; count as usize];
        audit::fill(&mut want, 77, Stream::B, 3, 63);
        assert_eq!(download::<f32>(&gpu, &values, want.len()), want);

        let key = encode::addend_key(78, 5, 900);
        let record = params(&gpu, [count, key, 0, 0, 0, 0, 0, 0]);
        run(
            &gpu,
            &kernels.addend,
            &[&values, &record],
            [count.div_ceil(256), 1],
        );
        exact::fill_exact(&mut want, 78, 5, 900);
        assert_eq!(download::<f32>(&gpu, &values, want.len()), want);
    }
}

#[test]
fn row_sums_have_the_bits_of_the_host_even_for_values_that_are_no_numbers() {
    for gpu in gpus() {
        let kernels = Kernels::new(&gpu, Dtype::F32);
        let (m, n) = (67_u32, 131_u32);
        let odd = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.0,
            1e-42,
            -1e-42,
            2_147_483_648.0,
            -2_147_483_648.0,
            3e38,
            -3e38,
            0.75,
            -1.5,
            16_777_216.0,
        ];
        let mut c: Vec<f32> = (0..m * n)
            .map(|i| audit::hash(5, Stream::B, 0, i) as i32 as f32 / 256.0)
            .collect();
        for (i, value) in odd.iter().enumerate() {
            c[i * 97 + 5] = *value;
        }
        let challenge = audit::challenge(AuditSeed(9), 1, n);
        let mut want = vec![0; m as usize];
        audit::row_sums(&c, &challenge, &mut want);
        let device_c = upload(&gpu, bytemuck::cast_slice(&c));
        let rows = upload(&gpu, &vec![0; 4 * m as usize + 64]);
        let key = audit::key(9, Stream::R, 1);
        let record = params(&gpu, [m, n, key, 2, 0, 0, 0, 0]);
        run(&gpu, &kernels.audit, &[&device_c, &rows, &record], [m, 1]);
        let got: Vec<u32> = download(&gpu, &rows, m as usize + 2);
        assert_eq!(got[2..], want);
    }
}

#[test]
fn an_optimizer_step_is_adamw_and_triad_is_triad() {
    for gpu in gpus() {
        let kernels = Kernels::new(&gpu, Dtype::F32);
        let arrays: Vec<Vec<f32>> = (0..4).map(|s| reals(64, 20 + s)).collect();
        let square: Vec<f32> = arrays[3].iter().map(|v| v * v).collect();
        let store = |v: &[f32]| upload(&gpu, bytemuck::cast_slice(v));
        let (p, g, m, v) = (
            store(&arrays[0]),
            store(&arrays[1]),
            store(&arrays[2]),
            store(&square),
        );
        let words = [0.01_f32, 0.9, 0.95, 1e-8, 0.1].map(f32::to_bits);
        let record = [16, words[0], words[1], words[2], words[3], words[4], 0, 0];
        run(
            &gpu,
            &kernels.adamw,
            &[&p, &g, &m, &v, &params(&gpu, record)],
            [1, 1],
        );
        let got: Vec<f32> = download(&gpu, &p, 64);
        for (i, got) in got.iter().enumerate() {
            let [p, g, m] = [0, 1, 2].map(|a| f64::from(arrays[a][i]));
            let mean = 0.9 * m + 0.1 * g;
            let square = 0.95 * f64::from(square[i]) + 0.05 * g * g;
            let want = p - 0.01 * (mean / (square.sqrt() + 1e-8) + 0.1 * p);
            assert!((f64::from(*got) - want).abs() < 1e-5, "{i}: {got} {want}");
        }
        let (x, z) = (store(&arrays[0]), store(&arrays[1]));
        let y = store(&arrays[2]);
        let record = params(&gpu, [16, 3.0_f32.to_bits(), 0, 0, 0, 0, 0, 0]);
        run(&gpu, &kernels.triad, &[&x, &z, &y, &record], [1, 1]);
        let got: Vec<f32> = download(&gpu, &y, 64);
        for (i, got) in got.iter().enumerate() {
            let want = f64::from(arrays[0][i]) + 3.0 * f64::from(arrays[1][i]);
            assert!((f64::from(*got) - want).abs() < 1e-6, "{i}: {got} {want}");
        }
        run(&gpu, &kernels.copy, &[&x, &z, &y, &record], [1, 1]);
        assert_eq!(download::<f32>(&gpu, &y, 64), arrays[0]);
    }
}

#[test]
fn a_flipped_bit_in_device_memory_is_caught() {
    for mut device in devices(Options::default()) {
        let mut step = device
            .prepare(&spec(vec![Gemm::new(65, 70, 33)]), None)
            .unwrap();
        let test = step.self_test().unwrap();
        assert!(test.clean_passed && test.flip_caught, "{}", test.detail);
    }
}

#[test]
fn steps_in_flight_retire_in_order_with_every_span_inside_them_and_every_audit_clean() {
    for host_clock in [false, true] {
        let options = Options {
            variant: None,
            host_clock,
        };
        for mut device in devices(options) {
            let spec = spec(vec![
                Gemm::new(64, 64, 64),
                Gemm::new(33, 17, 5),
                Gemm::new(64, 64, 64),
            ]);
            let mut step = device.prepare(&spec, None).unwrap();
            let begun_ns = now_ns();
            for seq in 0..4 {
                step.submit(submission(seq)).unwrap();
            }
            assert!(
                step.submit(submission(4)).is_err(),
                "a fifth step was queued"
            );
            let done = drain(step.as_mut());
            let ended_ns = now_ns();
            assert_eq!(done.iter().map(|d| d.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
            for done in &done {
                assert_eq!(done.timer == Timer::HostClock, host_clock);
                assert_eq!((done.gemms, done.audited), (3, 3));
                assert_eq!(done.mismatches, Vec::<String>::new());
                let flop: f64 = amounts(done, Work::Matmul);
                assert!(
                    (flop - spec.flop().0).abs() < 1.0 && (done.audited_flop - flop).abs() < 1.0
                );
                assert!((amounts(done, Work::Optimizer) - 5_001.0 * 28.0).abs() < 1.0);
                assert!((amounts(done, Work::Copy) - 140_000.0).abs() < 1.0);
                assert!((amounts(done, Work::Triad) - 210_000.0).abs() < 1.0);
                for span in &done.spans {
                    assert!(span.start_ns <= span.end_ns);
                    assert!(done.start_ns <= span.start_ns && span.end_ns <= done.end_ns);
                }
                // The fit of the device's clock is good to far better than 50 ms.
                assert!(done.start_ns + 50_000_000 > begun_ns);
                assert!(done.end_ns < ended_ns + 50_000_000);
            }
        }
    }
}

fn amounts(done: &StepDone, work: Work) -> f64 {
    let of = done.spans.iter().filter(|s| s.work == work);
    of.map(|s| s.amount).sum()
}

#[test]
fn two_ranks_sum_their_buckets_through_host_memory_and_learn_of_a_wish_to_stop() {
    if devices(Options::default()).is_empty() {
        return;
    }
    let mut spec = spec(vec![Gemm::new(64, 64, 64), Gemm::new(32, 32, 32)]);
    let bucket = |bytes, after| Bucket {
        bytes: Bytes(bytes),
        after,
    };
    spec.buckets = vec![bucket(40_004, 0), bucket(8, 1), bucket(1_000_000, 1)];
    let region = Arc::new(Region::create(2, &bucket_layout(&spec)).unwrap());
    let rank = |rank: u32| {
        let (spec, region) = (spec.clone(), Arc::clone(&region));
        std::thread::spawn(move || {
            let limit = Duration::from_secs(20);
            let group = HostCollective::join(region, rank, now_ns, limit).unwrap();
            let mut device = devices(Options::default()).remove(0);
            let mut step = device.prepare(&spec, Some(Box::new(group))).unwrap();
            for seq in 0..4 {
                let stop = rank == 1 && seq == 3;
                step.submit(Submission {
                    stop,
                    ..submission(seq)
                })
                .unwrap();
            }
            drain(step.as_mut())
        })
    };
    let ranks = [rank(0), rank(1)];
    for done in ranks.map(|r| r.join().unwrap()).iter().flatten() {
        assert_eq!(done.collective_fault, None);
        assert_eq!(done.mismatches, Vec::<String>::new());
        assert_eq!(done.stop_votes, u32::from(done.seq == 3));
        let reduced: Vec<_> = done
            .spans
            .iter()
            .filter(|s| s.work == Work::AllReduce)
            .collect();
        assert_eq!(reduced.len(), 3);
        assert!((amounts(done, Work::AllReduce) - 1_040_012.0).abs() < 1.0);
        let optimizer = done
            .spans
            .iter()
            .find(|s| s.work == Work::Optimizer)
            .unwrap();
        // The optimizer waits for every total; clocks agree to well under 5 ms.
        assert!(
            reduced
                .iter()
                .all(|r| r.end_ns < optimizer.start_ns + 5_000_000)
        );
    }
}

#[test]
fn a_rank_left_alone_says_whom_it_missed_and_goes_on_after_regrouping() {
    let Some(mut device) = devices(Options::default()).into_iter().next() else {
        return;
    };
    let mut spec = spec(vec![Gemm::new(16, 16, 16)]);
    spec.buckets = vec![Bucket {
        bytes: Bytes(4_096),
        after: 0,
    }];
    let region = Arc::new(Region::create(2, &bucket_layout(&spec)).unwrap());
    let peer = {
        let region = Arc::clone(&region);
        std::thread::spawn(move || {
            let limit = Duration::from_secs(20);
            // Joins and leaves at once.
            drop(HostCollective::join(region, 1, now_ns, limit).unwrap());
        })
    };
    let group = HostCollective::join(region, 0, now_ns, Duration::from_secs(20)).unwrap();
    peer.join().unwrap();
    let mut step = device.prepare(&spec, Some(Box::new(group))).unwrap();
    step.submit(submission(0)).unwrap();
    let done = drain(step.as_mut()).remove(0);
    assert!(done.collective_fault.is_some());
    assert!(done.spans.iter().all(|s| s.work != Work::AllReduce));
    assert_eq!(done.gemms, 1);
    step.regroup(2, &[0], LEAST_PATIENCE).unwrap();
    step.submit(submission(1)).unwrap();
    let done = drain(step.as_mut()).remove(0);
    assert_eq!((done.collective_fault, done.mismatches), (None, Vec::new()));
}

#[test]
fn what_a_device_cannot_do_is_refused_before_anything_is_allocated() {
    for mut device in devices(Options::default()) {
        let free = device.free_memory();
        let mut wrong = spec(vec![Gemm::new(8, 8, 8)]);
        wrong.dtype = Dtype::Bf16;
        let error = device.prepare(&wrong, None).err();
        assert!(
            matches!(error, Some(KernelError::Dtype { .. })),
            "{error:?}"
        );
        let deep = spec(vec![Gemm::new(1, 1, (1 << 24) + 1)]);
        let error = device.prepare(&deep, None).err();
        assert!(
            matches!(error, Some(KernelError::NoExactRange { .. })),
            "{error:?}"
        );
        let mut large = spec(vec![Gemm::new(8, 8, 8)]);
        large.memory = Bytes(free.0);
        let error = device.prepare(&large, None).err();
        assert!(
            matches!(error, Some(KernelError::Memory { .. })),
            "{error:?}"
        );
        let wide = spec(vec![Gemm::new(1 << 20, 1 << 14, 1)]);
        assert!(device.prepare(&wide, None).is_err());
        assert_eq!(device.free_memory(), free);
        let kept = device
            .prepare(&spec(vec![Gemm::new(8, 8, 8)]), None)
            .unwrap();
        assert!(device.free_memory() < free);
        drop(kept);
        assert_eq!(device.free_memory(), free);
    }
}
