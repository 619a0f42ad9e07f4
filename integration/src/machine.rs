//! What the machine says about a process and a disk: memory, CPU time, the time of an fsync.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The memory a process holds, in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("no VmRSS")
}

/// The CPU time a process has used, all its threads, user and system.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain spaces and parentheses: fields are counted from the last parenthesis.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).context("no utime")? + ticks(12).context("no stime")?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The file system of a folder.
pub fn file_system(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(' ');
            let (_, point, kind) = (parts.next()?, parts.next()?, parts.next()?);
            folder.starts_with(point).then(|| (point.len(), kind.to_owned()))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind)
        .context("no mount holds the folder")
}

/// The median time to make 4 KiB durable in a folder; a folder in memory is refused, since nothing
/// measured there holds on a disk.
pub fn fsync_time(folder: &Path) -> Result<Duration> {
    let kind = file_system(folder)?;
    if kind == "tmpfs" || kind == "ramfs" {
        bail!("{} is in memory ({kind}): choose a folder on a disk", folder.display());
    }
    let path = folder.join("fsync-probe");
    let mut file = fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..101 {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(&path)?;
    times.sort();
    Ok(times[times.len() / 2])
}

/// How many processes wanted to run in the last minute, five and fifteen: figures of a busy machine are no figures of
/// the program.
pub fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(", "))
}
