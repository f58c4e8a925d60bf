//! Sensors declared to a journal: thousands of a hall, and some that no disk kept.

use super::*;
use hallmark_results::store::shape::Shape;
use std::time::Instant;

/// Seconds to declare so many sensors to a new journal, the least of five.
fn declared_in_s(tables: u32) -> f64 {
    let once = |_| {
        let dir = TempDir::new().unwrap();
        let mut writer = JournalWriter::create(dir.path()).unwrap();
        writer
            .append(&Frame::Opened(Box::new(run::opened())))
            .unwrap();
        let all: Vec<Frame> = (0..tables)
            .map(|id| Frame::Table(run::table(id, &format!("gpu-{id}"), None)))
            .collect();
        let begun = Instant::now();
        all.iter().for_each(|t| writer.append(t).unwrap());
        begun.elapsed().as_secs_f64()
    };
    (0..5).map(once).fold(f64::INFINITY, f64::min)
}

#[test]
fn four_times_the_sensors_are_declared_in_about_four_times_the_time() {
    let (some, many) = (declared_in_s(3_000), declared_in_s(12_000));
    println!("3,000 in {some:.3} s, 12,000 in {many:.3} s");
    // A copy of all before it at each would take sixteen times as long.
    assert!(many < 12.0 * some, "{some} s and {many} s");
}

#[test]
fn declarations_that_no_disk_kept_are_forgotten() {
    let opened = Frame::Opened(Box::new(run::opened()));
    let table = |id, name| Frame::Table(run::table(id, name, None));
    let closed = run::frames(1).pop().unwrap();
    let mut shape = Shape::default();
    let nothing = shape.declared();
    shape.check(&opened).unwrap();
    shape.check(&table(0, "kept")).unwrap();
    let kept = shape.declared();
    shape.check(&table(1, "lost")).unwrap();
    shape.check(&closed).unwrap();
    assert!(shape.check(&table(2, "late")).is_err());
    shape.back_to(kept);
    assert!(!shape.is_closed() && shape.tables().len() == 1);
    assert!(shape.check(&table(1, "kept")).is_err());
    shape.check(&table(1, "other")).unwrap();
    shape.check(&table(2, "lost")).unwrap();
    shape.back_to(nothing);
    assert!(shape.check(&table(0, "first")).is_err());
    shape.check(&opened).unwrap();
    shape.check(&table(0, "first")).unwrap();
}
