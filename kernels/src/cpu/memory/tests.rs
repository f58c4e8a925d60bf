//! Copy, triad and AdamW against plain float64 arithmetic, at every alignment and chunking.

use super::*;

fn ramp(count: usize, step: f32) -> Vec<f32> {
    (0..count)
        .map(|i| (i % 1_009) as f32 * step - 1.0)
        .collect()
}

/// Lengths below and above the streaming limit, none a multiple of a line.
const LENGTHS: [usize; 5] = [0, 1, 15, 1_001, (STREAM_FROM_BYTES / 8) as usize + 37];

#[test]
fn copy_and_triad_are_exact_whatever_the_length_offset_and_threads() {
    for threads in [1, 2, 3] {
        let mut pool = Pool::new(threads, &[]).unwrap();
        for length in LENGTHS {
            let (b, c) = (ramp(length, 0.25), ramp(length, 0.5));
            for offset in [0, 1, 7] {
                let mut out = vec![f32::NAN; length + offset + 5];
                let bytes = copy(&mut pool, &mut out[offset..offset + length], &b).unwrap();
                assert_eq!(bytes, 8 * length as u64);
                assert!(
                    out[offset..offset + length]
                        .iter()
                        .zip(&b)
                        .all(|(x, y)| x.to_bits() == y.to_bits())
                );
                let bytes =
                    triad(&mut pool, &mut out[offset..offset + length], &b, &c, 3.0).unwrap();
                assert_eq!(bytes, 12 * length as u64);
                let same =
                    |(x, (b, c)): (&f32, (&f32, &f32))| x.to_bits() == (b + 3.0 * c).to_bits();
                assert!(
                    out[offset..offset + length]
                        .iter()
                        .zip(b.iter().zip(&c))
                        .all(same)
                );
                let outside = out[..offset].iter().chain(&out[offset + length..]);
                assert!(outside.clone().all(|x| x.is_nan()), "{length} at {offset}");
            }
        }
    }
}

#[test]
fn adamw_follows_the_published_update() {
    let settings = AdamW::default();
    let count = 1_003;
    let mut pool = Pool::new(2, &[]).unwrap();
    let (mut p, mut m, mut v) = (ramp(count, 0.003), vec![0.0; count], vec![0.0; count]);
    let mut want: Vec<[f64; 3]> = p.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
    let [rate, beta1, beta2, epsilon, decay] = [
        settings.rate,
        settings.beta1,
        settings.beta2,
        settings.epsilon,
        settings.weight_decay,
    ]
    .map(f64::from);
    for step in 1..=50_i32 {
        let grads = ramp(count, 0.002 * step as f32);
        let bytes = adamw(
            &mut pool,
            &mut p,
            &mut m,
            &mut v,
            &grads,
            &settings,
            step as u64,
        )
        .unwrap();
        assert_eq!(bytes, 28 * count as u64);
        for (state, &g) in want.iter_mut().zip(&grads) {
            let g = f64::from(g);
            let [p, m, v] = *state;
            let (m, v) = (
                beta1 * m + (1.0 - beta1) * g,
                beta2 * v + (1.0 - beta2) * g * g,
            );
            let (m_hat, v_hat) = (m / (1.0 - beta1.powi(step)), v / (1.0 - beta2.powi(step)));
            *state = [
                p - rate * (m_hat / (v_hat.sqrt() + epsilon) + decay * p),
                m,
                v,
            ];
        }
    }
    for (i, want) in want.iter().enumerate() {
        for (got, want) in [p[i], m[i], v[i]].into_iter().zip(want) {
            assert!(
                (f64::from(got) - want).abs() <= 2e-5 * (1.0 + want.abs()),
                "{i}: {got} for {want}"
            );
        }
    }
}

#[test]
fn ten_thousand_steps_stay_finite_and_bounded_whatever_the_gradients() {
    let gradients = [0.0, 1e-30, -1e-8, 0.5, -3.0, 1e6, -1e18, 1e18];
    let count = 8 * 21;
    let mut pool = Pool::new(2, &[]).unwrap();
    let (mut p, mut m, mut v) = (ramp(count, 1.0), vec![0.0; count], vec![0.0; count]);
    for step in 1..=10_000_u64 {
        // Constant for some, of changing sign or arriving rarely for others.
        let sign = if step % 2 == 0 { -1.0 } else { 1.0 };
        let rare = if step % 97 == 0 { 1.0 } else { 0.0 };
        let grads: Vec<f32> = (0..count)
            .map(|i| gradients[i % 8] * [1.0, sign, rare][i % 3])
            .collect();
        adamw(
            &mut pool,
            &mut p,
            &mut m,
            &mut v,
            &grads,
            &AdamW::default(),
            step,
        )
        .unwrap();
    }
    assert!(p.iter().chain(&m).chain(&v).all(|x| x.is_finite()));
    // Decay pulls towards |update| / weight_decay; updates are below about 1 / √(1 − beta2).
    assert!(p.iter().all(|p| p.abs() < 1_009.0), "parameters drifted");
}

#[test]
fn a_step_far_in_the_future_is_still_finite() {
    let mut pool = Pool::new(1, &[]).unwrap();
    let (mut p, mut m, mut v) = ([1.0f32], [0.1f32], [0.01f32]);
    adamw(
        &mut pool,
        &mut p,
        &mut m,
        &mut v,
        &[0.1],
        &AdamW::default(),
        u64::MAX,
    )
    .unwrap();
    assert!(p[0].is_finite() && p[0] < 1.0);
}

#[test]
fn unequal_lengths_and_unsafe_settings_are_refused_by_name() {
    let mut pool = Pool::new(1, &[]).unwrap();
    let refused = triad(&mut pool, &mut [0.0; 3], &[0.0; 3], &[0.0; 2], 1.0)
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "triad got slices of [3, 3, 2] values; all must be equally long"
    );
    let base = AdamW::default();
    for (name, bad) in [
        (
            "rate",
            AdamW {
                rate: f32::NAN,
                ..base
            },
        ),
        ("beta1", AdamW { beta1: 1.0, ..base }),
        (
            "beta2",
            AdamW {
                beta2: -0.1,
                ..base
            },
        ),
        (
            "epsilon",
            AdamW {
                epsilon: 0.0,
                ..base
            },
        ),
        (
            "weight_decay",
            AdamW {
                weight_decay: 1e6,
                ..base
            },
        ),
    ] {
        let text = adamw(
            &mut pool,
            &mut [0.0],
            &mut [0.0],
            &mut [0.0],
            &[0.0],
            &bad,
            1,
        )
        .unwrap_err()
        .to_string();
        assert!(text.contains(name), "{text}");
    }
    let refused = adamw(
        &mut pool,
        &mut [0.0],
        &mut [0.0],
        &mut [0.0],
        &[0.0],
        &base,
        0,
    );
    assert!(matches!(refused, Err(MemoryError::StepZero)));
}
