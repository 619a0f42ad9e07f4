//! What the machine says about a process and a disk: memory, CPU time, the time of an fsync.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// Cores that a process may run on.
#[derive(Clone, Debug)]
pub struct Cores(CpuSet);

impl Cores {
    /// Those of this process.
    pub fn allowed() -> Result<Self> {
        Ok(Self(sched_getaffinity(None)?))
    }

    /// One half of them and the other; with a single one, both have that.
    pub fn halves(&self) -> (Self, Self) {
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| self.0.is_set(*core)).collect();
        let (first, second) = all.split_at(all.len() / 2);
        let of = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            Self(set)
        };
        if first.is_empty() { (self.clone(), self.clone()) } else { (of(first), of(second)) }
    }

    /// Keeps every thread of a process to them, and those that it starts from now on.
    pub fn keep(&self, pid: u32) -> Result<()> {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = thread?.file_name();
            let thread =
                name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw).context("no thread")?;
            match sched_setaffinity(Some(thread), &self.0) {
                // It has ended meanwhile.
                Err(Errno::SRCH) => {}
                kept => kept?,
            }
        }
        Ok(())
    }
}

/// Lets every other thread of the machine go before the one that calls, for good.
pub fn step_back() -> Result<()> {
    const LAST: i32 = 19;
    // Of a thread: Linux keeps this for each.
    Ok(setpriority_process(Some(gettid()), LAST)?)
}

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

/// What a process holds of the memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Everything that is mapped and there, also what it shares with others: the program's own file above all.
    pub resident_kib: u64,
    /// The same with its share of what is shared.
    pub proportional_kib: u64,
    /// What it has written and nobody else has.
    pub private_kib: u64,
}

/// What a process holds of the memory, with and without what it shares.
pub fn memory(pid: u32) -> Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        line.split_whitespace().next().and_then(|number| number.parse().ok()).with_context(|| format!("no {name}"))
    };
    Ok(Memory { resident_kib: field("Rss:")?, proportional_kib: field("Pss:")?, private_kib: field("Private_Dirty:")? })
}

/// The CPU time a process has used, all its threads, user and system.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let fields = stat(pid)?;
    Ok(ticks(field(&fields, 11)? + field(&fields, 12)?))
}

/// The same with its children, those that have ended included, and theirs.
pub fn cpu_time_of_family(pid: u32) -> Result<Duration> {
    let mut family = vec![pid];
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let child = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        // One that ends meanwhile is counted by its parent, which waited for it.
        if let Some((child, fields)) = child.and_then(|child| Some((child, stat(child).ok()?))) {
            parents.push((child, u32::try_from(field(&fields, 1)?)?));
        }
    }
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(child, _)| child));
        next += 1;
    }
    let used = family
        .iter()
        .filter_map(|pid| stat(*pid).ok())
        .map(|fields| (11..=14).map(|index| field(&fields, index)).sum::<Result<u64>>());
    Ok(ticks(used.sum::<Result<u64>>()?))
}

/// The fields of a process's `stat` behind its name, as it is written: 0 is the state, 1 the parent, 11 to 14 the ticks of
/// the CPU: user, system, and both of children that were waited for.
fn stat(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain spaces and parentheses: fields are counted from the last parenthesis.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).context("no name in stat")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

fn field(fields: &[String], index: usize) -> Result<u64> {
    fields.get(index).and_then(|field| field.parse().ok()).with_context(|| format!("no field {index} in stat"))
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
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
