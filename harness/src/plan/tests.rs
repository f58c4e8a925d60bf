//! What a plan promises of the work, its course and what was changed.

use super::*;

pub(super) fn device(id: &str) -> DeviceInfo {
    DeviceInfo {
        id: id.to_owned(),
        engine: "cpu".to_owned(),
        name: "a processor".to_owned(),
        vendor: String::new(),
        pci: None,
        uuid: None,
        driver: String::new(),
        memory: Bytes::gibibytes(8),
        dtypes: vec![Dtype::F32],
        software: true,
        cores: vec![0],
        facts: Vec::new(),
    }
}

pub(super) fn smoke() -> Loaded {
    hallmark_profiles::profile::load("smoke").unwrap()
}

pub(super) fn settings(rate: f64) -> Settings {
    Settings {
        probe: Some(rate),
        ..Settings::default()
    }
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let devices = [device("cpu0"), device("cpu1")];
    let make = || {
        super::make(&smoke(), &devices, &settings(150e9))
            .unwrap()
            .digest()
    };
    assert_eq!(make(), make());
}

#[test]
fn a_training_step_does_three_matmuls_for_each_weight_and_reduces_every_gradient() {
    let plan = make(
        &smoke(),
        &[device("cpu0"), device("cpu1")],
        &settings(200e9),
    )
    .unwrap();
    let step = &plan.steps[plan.schedule.last().unwrap().step];
    assert_eq!(step.gemms.len(), 2 * 4 * 3);
    let reduced: u64 = step.buckets.iter().map(|b| b.bytes.0).sum();
    assert_eq!(reduced, 4 * step.parameters);
    let forward: f64 = step.gemms[..8].iter().map(|g| g.flop().0).sum();
    assert!((step.flop().0 / forward - 3.0).abs() < 1e-9);
    assert!(step.buckets.windows(2).all(|w| w[0].after <= w[1].after));
}

#[test]
fn a_slow_device_gets_a_smaller_step_and_a_fast_one_a_larger() {
    let devices = [device("cpu0")];
    let flop = |rate| {
        make(&smoke(), &devices, &settings(rate)).unwrap().steps[0]
            .flop()
            .0
    };
    assert!(flop(4e9) <= 4e9 * 0.12);
    assert!(flop(4e9) < flop(150e9));
    assert!(flop(150e9) < flop(10e12));
}

#[test]
fn a_dtype_that_no_device_has_is_refused_with_what_each_has() {
    let soak = hallmark_profiles::profile::load("soak").unwrap();
    let error = make(&soak, &[device("cpu0")], &Settings::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bf16") && error.contains("cpu0 has f32"),
        "{error}"
    );
}

#[test]
fn a_matmul_that_does_not_fit_says_what_is_free_and_needed() {
    let text = smoke()
        .text
        .replace("hidden = 512", "hidden = 65536")
        .replace("fit_step = \"120 ms\"\n", "");
    let loaded = hallmark_profiles::profile::parse(&text, "big.toml").unwrap();
    let error = make(&loaded, &[device("cpu0")], &Settings::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cpu0 has 8\u{a0}GiB free, the profile's steps need"),
        "{error}"
    );
}

#[test]
fn a_shorter_run_scales_every_phase_and_says_so() {
    let mut settings = settings(150e9);
    settings.duration = Time::new(Duration::from_secs(10));
    let plan = make(&smoke(), &[device("cpu0"), device("cpu1")], &settings).unwrap();
    let phases = plan
        .schedule
        .iter()
        .filter(|s| matches!(s.kind, SegmentKind::Phase(_)));
    let total: u64 = phases.map(|s| s.duration_ns).sum();
    assert!(total.abs_diff(10_000_000_000) < 10, "{total}");
    assert_eq!(plan.overrides.len(), 1);
}

#[test]
fn the_load_rises_and_falls_by_groups() {
    let devices: Vec<_> = (0..4).map(|i| device(&format!("cpu{i}"))).collect();
    let plan = make(&smoke(), &devices, &settings(150e9)).unwrap();
    let active: Vec<_> = plan.schedule.iter().map(|s| s.active).collect();
    assert_eq!((active[0], active[active.len() - 1]), (2, 2));
    assert!(active[1..active.len() - 1].iter().all(|a| *a == 4));
}

#[test]
fn each_run_draws_its_audits_and_the_load_stays_the_profiles() {
    let with = |audit_seed| {
        let settings = Settings {
            audit_seed: AuditSeed(audit_seed),
            ..settings(150e9)
        };
        make(&smoke(), &[device("cpu0"), device("cpu1")], &settings).unwrap()
    };
    let (one, other) = (with(1), with(2));
    assert_ne!(one.digest(), other.digest());
    for (a, b) in one.steps.iter().zip(&other.steps) {
        assert_eq!((a.seed, &a.gemms), (smoke().profile.seed, &b.gemms));
        assert_eq!((a.audits(), b.audits()), (AuditSeed(1), AuditSeed(2)));
    }
}

#[test]
fn a_plan_without_a_drawn_seed_reads_back_under_its_old_digest_and_audits_by_its_one_seed() {
    let mut plan = make(&smoke(), &[device("cpu0")], &settings(150e9)).unwrap();
    for step in &mut plan.steps {
        step.audit_seed = None;
    }
    let text = serde_json::to_string(&plan).unwrap();
    assert!(!text.contains("audit_seed"), "{text}");
    let back: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(back.digest(), plan.digest());
    assert_eq!(back.steps[0].audits(), AuditSeed(plan.seed));
}

fn changed(settings: &Settings) -> Vec<String> {
    make(&smoke(), &[device("cpu0")], settings)
        .unwrap()
        .overrides
}

#[test]
fn who_chooses_devices_or_libraries_by_hand_is_written_into_the_plan() {
    let settings = settings(150e9);
    assert_eq!(changed(&settings), [""; 0]);
    let auto = Settings {
        devices: vec!["auto".to_owned()],
        ..settings.clone()
    };
    assert_eq!(changed(&auto), [""; 0], "the default is no choice");
    let chosen = Settings {
        devices: vec!["wgpu0".to_owned(), "wgpu2".to_owned()],
        nvml: Some(PathBuf::from("/tmp/mine.so")),
        ..settings
    };
    let changes = changed(&chosen);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].starts_with("--devices wgpu0,wgpu2: "));
    assert!(changes[1].starts_with("--nvml /tmp/mine.so: "));
}

#[test]
fn devices_driven_by_another_program_are_stand_ins() {
    let settings = Settings {
        worker: Some(PathBuf::from("/tmp/worker")),
        ..settings(150e9)
    };
    let plan = make(&smoke(), &[device("cpu0"), device("cpu1")], &settings).unwrap();
    let stand_in = |d: &PlannedDevice| d.provenance == Provenance::StandIn;
    assert!(plan.devices.iter().all(stand_in));
    assert!(
        plan.overrides[0].contains("/tmp/worker"),
        "{:?}",
        plan.overrides
    );
}

#[test]
fn a_profile_that_only_bears_a_built_in_ones_name_is_told_apart() {
    let text = smoke()
        .text
        .replace("at_least = \"95 %\"", "at_least = \"5 %\"");
    let mine = hallmark_profiles::profile::parse(&text, "mine.toml").unwrap();
    let plan = make(&mine, &[device("cpu0")], &settings(150e9)).unwrap();
    assert_eq!(plan.overrides.len(), 1);
    let told = &plan.overrides[0];
    for part in [
        "mine.toml",
        "`smoke`",
        &mine.digest()[..12],
        &smoke().digest()[..12],
    ] {
        assert!(told.contains(part), "{told}");
    }
    let copy = hallmark_profiles::profile::parse(&smoke().text, "copy.toml").unwrap();
    let plan = make(&copy, &[device("cpu0")], &settings(150e9)).unwrap();
    assert_eq!(plan.overrides, [""; 0], "a true copy is the same profile");
}

/// The hall's profile on devices that have its element type.
fn hall(extra: &str, settings: &Settings) -> Result<Plan, PlanError> {
    let text = hallmark_profiles::profile::load("hall-acceptance")
        .unwrap()
        .text;
    let text = format!("{text}\n{extra}").replace("\"hall-acceptance\"", "\"our-hall\"");
    let loaded = hallmark_profiles::profile::parse(&text, "our-hall.toml").unwrap();
    let info = DeviceInfo {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        dtypes: vec![Dtype::Bf16],
        memory: Bytes::gibibytes(80),
        software: false,
        ..device("wgpu0")
    };
    make(&loaded, &[info], settings)
}

#[test]
fn a_run_that_could_accept_a_site_says_what_the_site_has_or_does_not_begin() {
    let none = Settings::default();
    let error = hall("", &none).unwrap_err().to_string();
    assert!(error.contains("--expect-devices N"), "{error}");
    let asked = Settings {
        expect_devices: Some(8),
        ..Settings::default()
    };
    let plan = hall("", &asked).unwrap();
    assert_eq!(plan.inventory.as_ref().unwrap().devices, 8);
    assert_eq!(plan.overrides, [""; 0], "a declaration is no change");
    assert!(plan.profile().unwrap().accepts_site);
    let undeclared = Plan {
        inventory: None,
        ..plan
    };
    assert!(!undeclared.profile().unwrap().accepts_site);
    let declared = "[inventory]\ndevices = 4\n";
    assert_eq!(hall(declared, &none).unwrap().inventory.unwrap().devices, 4);
    let error = hall(declared, &asked).unwrap_err().to_string();
    assert!(
        error.contains("declares 4") && error.contains("says 8"),
        "{error}"
    );
}

#[test]
fn every_declared_device_that_does_not_take_part_is_missing() {
    use hallmark_profiles::inventory::Inventory;
    let planned = |id: &str, sku: Option<&str>, uuid: Option<&str>, pci: Option<&str>| {
        let mut device = planned(&device(id), &Settings::default());
        device.sku = sku.map(str::to_owned);
        device.uuid = uuid.map(str::to_owned);
        device.pci = pci.map(str::to_owned);
        device
    };
    let devices = [
        planned("cuda0", Some("H100 SXM"), Some("GPU-A"), None),
        planned("wgpu1", Some("H100 SXM"), None, Some("0000:43:00.0")),
        planned("cuda2", Some("A100 SXM 80GB"), Some("GPU-C"), None),
    ];
    let watched = [crate::sensor::DeviceKey {
        uuid: Some("GPU-B".to_owned()),
        pci: Some("0000:43:00.0".to_owned()),
    }];
    let missing = |inventory: &Inventory| inventory::missing(inventory, &devices, &watched);
    assert_eq!(missing(&Inventory::of(3)), [""; 0]);
    assert_eq!(missing(&Inventory::of(2)), [""; 0]);
    let short = missing(&Inventory::of(5));
    assert_eq!(short.len(), 2);
    assert_eq!(
        short[0],
        "device 4 of 5 declared was not found; 3 take part"
    );
    let mut model = Inventory {
        sku: Some("H100 SXM".to_owned()),
        ..Inventory::of(4)
    };
    let wrong = missing(&model);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert_eq!(
        wrong[0],
        "cuda2 is `a processor`, not the H100 SXM declared"
    );
    model.devices = 2;
    assert_eq!(
        missing(&model),
        [""; 0],
        "another model beside them takes nobody's place"
    );
    let named = Inventory {
        uuids: ["gpu-a", "GPU-B", "GPU-D"].map(str::to_owned).to_vec(),
        ..Inventory::of(3)
    };
    assert_eq!(missing(&named), ["declared device GPU-D was not found"]);
}
