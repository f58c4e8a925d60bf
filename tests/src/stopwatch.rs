//! Time and memory of this process as the kernel accounts them, one printed line a figure, for the measuring examples.

/// Seconds since boot, in steps of 10 ms.
fn uptime_s() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|s| s.parse().ok()).unwrap_or(f64::NAN)
}

/// Processor seconds of this process's threads, the ended ones included, in steps of 10 ms.
fn processor_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in brackets that may hold spaces; user and system ticks are 14th and 15th.
    let (_, fields) = text.rsplit_once(')').unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|t| t.parse::<f64>().unwrap_or(f64::NAN) / 100.0)
        .sum()
}

/// Does the work and prints how long it took, on the wall clock and in processor seconds.
pub fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (wall_s, busy_s) = (uptime_s(), processor_s());
    let result = work();
    let (wall_s, busy_s) = (uptime_s() - wall_s, processor_s() - busy_s);
    println!("{what}: {wall_s:.2} s, processor {busy_s:.2} s");
    result
}

/// Prints the largest resident size of the process so far.
pub fn peak(when: &str) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    println!("peak memory, {when}: {}", line.unwrap_or("unknown").trim());
}
