//! What a replayed file may say and when its rows hold.

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn parse(text: &str) -> Result<ReplaySensor, ReplayError> {
    ReplaySensor::parse(text.as_bytes(), Path::new("hall/Meters.csv"))
}

fn refusal(text: &str) -> String {
    parse(text)
        .expect_err("this file must be refused")
        .to_string()
}

fn at(sensor: &mut ReplaySensor, at_s: f64) -> Reading {
    sensor.read((at_s * NS_PER_S) as u64)
}

/// Bits, so that “no value” can be compared.
fn bits(reading: &Reading) -> Vec<u64> {
    reading.values.iter().map(|value| value.to_bits()).collect()
}

fn numbers(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn columns_are_converted_to_the_catalogues_units_and_called_replayed() {
    let text = "\u{feff}at_s,power_draw.average (W),rack_density.rack-7 (kW),interim_pue,duty (%)\r\n\
                0,612.5,28.5,1.25,50\r\n\
                1,613,29,1.5,100\r\n\r\n";
    let mut sensor = parse(text).unwrap();
    let about = sensor.describe();
    assert_eq!(about.provenance, Provenance::Replayed);
    assert_eq!(about.source, "CSV file hall/Meters.csv");
    assert!(about.name.starts_with("replay-meters-"), "{}", about.name);
    assert!(hallmark_results::store::shape::is_table_name(&about.name));
    let names: Vec<_> = about
        .series
        .iter()
        .map(|series| (series.metric.id(), series.label.as_str(), series.unit))
        .collect();
    let wanted = [
        ("power_draw", "average", Unit::Watt),
        ("rack_density", "rack-7", Unit::Watt),
        ("interim_pue", "", Unit::One),
        ("duty", "", Unit::One),
    ];
    assert_eq!(names, wanted);
    let reading = at(&mut sensor, 0.5);
    assert_eq!(reading.trouble, None);
    assert_eq!(bits(&reading), numbers(&[612.5, 28_500.0, 1.25, 0.5]));
}

#[test]
fn files_of_one_name_in_two_folders_are_two_tables() {
    let text = "at_s,power_draw (W)\n0,1\n1,2\n";
    let name = |path: &str| {
        let sensor = ReplaySensor::parse(text.as_bytes(), Path::new(path)).unwrap();
        sensor.describe().name
    };
    assert_ne!(name("a/meters.csv"), name("b/meters.csv"));
    assert_eq!(name("a/meters.csv"), name("a/meters.csv"));
}

#[test]
fn a_row_holds_until_the_next_and_nothing_is_there_before_and_after() {
    let mut sensor = parse("at_s,power_draw (W)\n10,100\n11,110\n12,120\n").unwrap();
    let value = |sensor: &mut ReplaySensor, at_s| at(sensor, at_s).values[0].to_bits();
    assert_eq!(value(&mut sensor, 10.0), 100_f64.to_bits());
    assert_eq!(value(&mut sensor, 10.999), 100_f64.to_bits());
    assert_eq!(value(&mut sensor, 11.0), 110_f64.to_bits());
    assert_eq!(value(&mut sensor, 12.999), 120_f64.to_bits());
    let before = at(&mut sensor, 9.999);
    assert!(before.values[0].is_nan());
    let begins = Trouble::Failed("the file begins at 10 s".to_owned());
    assert_eq!(before.trouble, Some(begins));
    for at_s in [13.0, 1e6, 1.8e10] {
        let after = at(&mut sensor, at_s);
        assert!(after.values[0].is_nan());
        let ends = Trouble::Lost("the file ends at 12 s".to_owned());
        assert_eq!(after.trouble, Some(ends));
    }
}

#[test]
fn a_hole_of_more_than_three_steps_is_a_gap_and_a_smaller_one_is_held() {
    let text = "at_s,power_draw (W)\n0,1\n1,2\n2,3\n5,4\n6,5\n20,6\n21,7\n";
    let mut sensor = parse(text).unwrap();
    assert_eq!(bits(&at(&mut sensor, 4.9)), numbers(&[3.0]));
    assert_eq!(bits(&at(&mut sensor, 9.0)), numbers(&[5.0]));
    let hole = at(&mut sensor, 9.1);
    assert!(hole.values[0].is_nan());
    let why = "the file has no row from 6 s to 20 s".to_owned();
    assert_eq!(hole.trouble, Some(Trouble::Failed(why)));
    assert_eq!(bits(&at(&mut sensor, 20.0)), numbers(&[6.0]));
}

#[test]
fn an_empty_cell_is_no_value_never_a_zero_nor_the_value_before() {
    let text = "at_s,power_draw (W),temp_core (°C)\n0,5,40\n1,,41\n2, ,\n3,6,42\n";
    let mut sensor = parse(text).unwrap();
    let half = at(&mut sensor, 1.0);
    assert!(half.values[0].is_nan());
    assert_eq!(half.values[1].to_bits(), 41_f64.to_bits());
    assert_eq!(
        half.trouble, None,
        "the file says itself that there is none"
    );
    let none = at(&mut sensor, 2.5);
    assert!(none.values.iter().all(|value| value.is_nan()));
    let why = "the row at 2 s is empty".to_owned();
    assert_eq!(none.trouble, Some(Trouble::Failed(why)));
}

#[test]
fn a_meters_energy_is_a_counter() {
    let sensor = parse("at_s,energy (kWh),power_draw (W)\n0,1,1\n1,2,2\n").unwrap();
    let kinds: Vec<_> = sensor.columns.iter().map(|c| c.series.kind).collect();
    assert_eq!(kinds, [SeriesKind::Counter, SeriesKind::Gauge]);
    assert_eq!(numbers(&sensor.cells[..1]), numbers(&[3.6e6]));
}

#[test]
fn each_bad_line_is_refused_with_its_number_and_what_to_write() {
    let cases = [
        ("", "hall/Meters.csv:1: the first column is ``"),
        (
            "time,power_draw (W)\n",
            ":1: the first column is `time`, not `at_s`",
        ),
        ("at_s\n", ":1: no column beside `at_s`"),
        (
            "at_s,power_drew (W)\n",
            "did you mean `power_draw`?); known: matmul_rate,",
        ),
        (
            "at_s,power_draw (horse)\n",
            "unknown unit `horse` in `1 horse`; known: ns,",
        ),
        (
            "at_s,power_draw\n",
            "`power_draw` is in 1, power_draw needs W; write such as `power_draw (W)`",
        ),
        (
            "at_s,temp_core (K)\n",
            "`temp_core (K)` is in K, temp_core needs °C",
        ),
        ("at_s,power_draw. (W)\n", "label of `power_draw. (W)`"),
        (
            "at_s,power_draw.\u{1b}[2J (W)\n",
            "label of `power_draw.?[2J (W)`",
        ),
        ("at_s,duty.a,duty.a (%)\n", "two columns are `duty.a (%)`"),
        ("at_s,duty\n0,1\n1,1,1\n", ":3: 3 cells under 2 heads"),
        ("at_s,duty\n0,1\n1\n", ":3: 1 cells under 2 heads"),
        (
            "at_s,duty\n0,one\n",
            ":2: `one` under `duty` is no finite number",
        ),
        ("at_s,duty\n0,nan\n", ":2: `nan` under `duty`"),
        (
            "at_s,power_draw (MW)\n0,1e308\n",
            ":2: `1e308` under `power_draw (MW)`",
        ),
        ("at_s,duty\n,1\n", ":2: `` under `at_s`"),
        (
            "at_s,duty\n-1,1\n",
            ":2: time -1 s is outside of 0 to 8640000 s",
        ),
        ("at_s,duty\n1e9,1\n", ":2: time 1e9 s is outside"),
        (
            "at_s,duty\n\n1,1\n1,1\n",
            ":4: time 1 s is not after the row before",
        ),
        (
            "at_s,duty\n2,1\n1,1\n",
            ":3: time 1 s is not after the row before",
        ),
        (
            "at_s,duty\n2,1\n",
            "hall/Meters.csv has 1 rows of values; a replay needs at least 2",
        ),
    ];
    for (text, wanted) in cases {
        let found = refusal(text);
        assert!(found.contains(wanted), "{text:?}: {found}");
        assert!(!found.contains(['\n', '\u{1b}']), "one line: {found:?}");
    }
}

#[test]
fn a_file_beyond_all_bounds_is_refused_before_it_is_held() {
    let endless = io::BufReader::new(io::repeat(b','));
    let error = ReplaySensor::parse(endless, Path::new("zero")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("zero:1: longer than 65536 bytes"),
        "{error}"
    );
    let wide = format!("at_s{}\n", ",duty".repeat(COLUMNS_MAX + 1));
    assert!(refusal(&wide).contains("257 columns beside `at_s`"));
    let mut grown = Lines::new(&b"\n\n"[..], Path::new("grown"));
    grown.bytes = FILE_BYTES_MAX - 1;
    assert!(grown.next().is_ok());
    let error = grown.next().unwrap_err();
    assert!(matches!(error, ReplayError::TooLarge { .. }), "{error}");
    assert!(ReplaySensor::parse(&[0xff, 0xfe, b'\n'][..], Path::new("x")).is_err());
}

#[test]
fn what_is_no_regular_file_or_too_large_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let error = ReplaySensor::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("not a regular file"), "{error}");
    assert!(ReplaySensor::open(&folder.path().join("none.csv")).is_err());
    let path = folder.path().join("some.csv");
    let sparse = File::create(&path).unwrap();
    sparse.set_len(FILE_BYTES_MAX + 1).unwrap();
    let error = ReplaySensor::open(&path).unwrap_err();
    assert!(matches!(error, ReplayError::TooLarge { .. }), "{error}");
    std::fs::write(&path, "at_s,duty\n0,1\n0.1,1\n").unwrap();
    assert_eq!(ReplaySensor::open(&path).unwrap().step_ns, SECOND_NS / 10);
}

#[test]
fn any_bytes_end_in_an_error_or_in_readings_never_in_a_panic() {
    let whole = "at_s,power_draw.a (kW),duty\n0,1.5,1\n1,,0.5\n2,3,\n".as_bytes();
    let mut seed = 11_u64;
    let mut next = |below: usize| {
        // Knuth's MMIX generator; the upper bits are the good ones.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..5_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..=next(4) {
            let place = next(bytes.len());
            match next(3) {
                0 => bytes[place] = next(256) as u8,
                1 => bytes.truncate(place + 1),
                _ => bytes.insert(place, b",.()\n-e9"[next(8)]),
            }
        }
        if let Ok(mut sensor) = ReplaySensor::parse(bytes.as_slice(), Path::new("seed 11")) {
            let columns = sensor.describe().series.len();
            for now_ns in [0, SECOND_NS, 5 * SECOND_NS, u64::MAX] {
                assert_eq!(sensor.read(now_ns).values.len(), columns);
            }
        }
    }
}
