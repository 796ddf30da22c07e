//! How much of the machine this process may use.
//!
//! Besides what the machine has, control groups say how much of it a group of processes gets, in
//! two versions that may be mounted side by side. A limit holds for a group and for all below it,
//! so the least of this process's group and its ancestors counts. Inside a container only a part
//! of that chain can be seen, and a limit further up stays unknown.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io, iter, str};

/// The CPU that this thread ran on a moment ago.
pub(crate) fn current_cpu() -> u32 {
    // SAFETY: the call takes nothing and touches no memory of the caller's.
    let cpu = unsafe { libc::sched_getcpu() };
    // Fails only on kernels without the call, which are older than all that this crate runs on.
    u32::try_from(cpu).unwrap_or(0)
}

/// The number of CPUs that this thread may run on.
///
/// See [`sched_setaffinity(2)`](https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html).
pub(crate) fn affinity_count() -> usize {
    // The kernel refuses a mask with fewer bits than it has itself, and does not tell how many.
    let sizes = iter::successors(Some(16_usize), |words| Some(words * 2)).take(10);
    sizes.filter_map(affinity_in).next().unwrap_or_else(machine_cpus)
}

fn affinity_in(words: usize) -> Option<usize> {
    let mut mask = vec![0_u64; words];
    let (bytes, start) = (size_of_val(&*mask), mask.as_mut_ptr().cast::<libc::cpu_set_t>());
    // SAFETY: the call writes at most `bytes` bytes, all of them in `mask`, and any bits are a
    // valid `u64`.
    let result = unsafe { libc::sched_getaffinity(0, bytes, start) };
    let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
    (result == 0 && count > 0).then_some(count as usize)
}

/// The number of CPUs of the machine that are switched on; at least 1.
pub(crate) fn machine_cpus() -> usize {
    // SAFETY: the call only returns a number.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// How many CPUs' worth of time the control groups leave to this process; `None` without a limit.
pub(crate) fn cgroup_cpu_quota() -> Option<f64> {
    let v2 = |group: &Path| parse_cpu_max(&read(group, "cpu.max")?);
    let v1 = |group: &Path| {
        let quota = read(group, "cpu.cfs_quota_us")?;
        parse_cfs(&quota, &read(group, "cpu.cfs_period_us")?)
    };
    Groups::of_this_process("cpu").least(v2, v1, f64::min)
}

/// The number of CPUs that this process can keep busy: by affinity and by quota, at least 1.
pub(crate) fn available_cpus() -> usize {
    within_quota(affinity_count())
}

/// The number of CPUs that this process and others with the same quota can keep busy: as
/// [`available_cpus`], but others may run where this one may not. At least 1.
pub(crate) fn shared_cpus() -> usize {
    within_quota(machine_cpus())
}

fn within_quota(cpus: usize) -> usize {
    let by_quota = cgroup_cpu_quota().map_or(usize::MAX, |cpus| cpus.ceil() as usize);
    cpus.min(by_quota).max(1)
}

/// The bytes of memory that this process can count on at most: the machine's, or its groups'.
pub(crate) fn memory_limit() -> u64 {
    let v2 = |group: &Path| parse_limit(&read(group, "memory.max")?);
    let v1 = |group: &Path| parse_limit(&read(group, "memory.limit_in_bytes")?);
    let by_group = Groups::of_this_process("memory").least(v2, v1, u64::min);
    by_group.unwrap_or(u64::MAX).min(machine_memory())
}

/// The numbers of the CPUs that this thread may run on.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Has this thread, and those that it starts, run on these CPUs alone.
pub(crate) fn run_on(cpus: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Where the kernel counts the processes of this process's control group that it killed for want of
/// memory.
#[derive(Debug)]
pub(crate) struct KillCounter(&'static Groups);

impl KillCounter {
    /// The counters that hold for this process.
    pub(crate) fn of_this_process() -> Self {
        // Finding them takes longer than reading them, and few processes ever change their group.
        static GROUPS: OnceLock<Groups> = OnceLock::new();
        Self(GROUPS.get_or_init(|| Groups::of_this_process("memory")))
    }

    /// How many processes were killed so far; `None` if nobody counts.
    pub(crate) fn read(&self) -> Option<u64> {
        let v2 = |group: &Path| parse_kills(&read(group, "memory.events")?);
        let v1 = |group: &Path| parse_kills(&read(group, "memory.oom_control")?);
        // A group counts what happens in those below it too.
        self.0.least(v2, v1, u64::max)
    }
}

/// The line `oom_kill` of `memory.events`, and of `memory.oom_control` in version 1.
fn parse_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The bytes of memory that this process has for itself: resident, and neither shared nor of a file.
pub(crate) fn own_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = parse_statm(&text).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Resident pages without those shared with others, from the second and third number.
fn parse_statm(text: &str) -> Option<u64> {
    let mut numbers = text.split(' ').skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, shared) = (numbers.next()??, numbers.next()??);
    Some(resident.saturating_sub(shared))
}

fn machine_memory() -> u64 {
    // Read rather than asked for with `sysinfo`, because containers put their own share there.
    let told = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_mem_total(&text));
    told.unwrap_or_else(|| {
        let info = rustix::system::sysinfo();
        (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
    })
}

fn parse_mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The folders of the groups that this process is in, by version of their interface.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups {
    v1: Vec<PathBuf>,
    v2: Vec<PathBuf>,
}

impl Groups {
    fn of_this_process(controller: &str) -> Self {
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        Self::find(&file("/proc/self/cgroup"), &file("/proc/self/mountinfo"), controller)
    }

    /// Finds the folders by the text of `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
    ///
    /// See [`cgroups(7)`](https://man7.org/linux/man-pages/man7/cgroups.7.html) and
    /// [`proc_pid_mountinfo(5)`](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
    fn find(cgroup: &str, mountinfo: &str, controller: &str) -> Self {
        let mounts: Vec<_> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut groups = Self::default();
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if names.is_empty() {
                groups.v2 = chain(&mounts, |mount| mount.kind == "cgroup2", Path::new(path));
            } else if names.split(',').any(|name| name == controller) {
                let is_its = |mount: &Mount<'_>| mount.kind == "cgroup" && mount.has(controller);
                groups.v1 = chain(&mounts, is_its, Path::new(path));
            }
        }
        groups
    }

    fn least<T>(
        &self,
        v2: impl Fn(&Path) -> Option<T>,
        v1: impl Fn(&Path) -> Option<T>,
        least: impl Fn(T, T) -> T,
    ) -> Option<T> {
        let v2 = self.v2.iter().filter_map(|group| v2(group));
        let v1 = self.v1.iter().filter_map(|group| v1(group));
        v2.chain(v1).reduce(least)
    }
}

/// The folder of the group `path` and of those above it, as far as they are mounted.
fn chain(mounts: &[Mount<'_>], wanted: impl Fn(&Mount<'_>) -> bool, path: &Path) -> Vec<PathBuf> {
    let mounts: Vec<_> = mounts.iter().filter(|mount| wanted(mount)).collect();
    let holding = mounts.iter().filter_map(|mount| Some((mount, mount.below(path)?)));
    // Of several mounts, the one that begins nearest to the root shows the longest chain.
    match holding.min_by_key(|(mount, _)| mount.root.components().count()) {
        Some((mount, below)) => below.ancestors().map(|below| mount.point.join(below)).collect(),
        // In a container the mount may begin at its own group although the path is told from
        // further up, or the path may lead out of it; the mount's top is the nearest thing then.
        None => mounts.first().map(|mount| mount.point.clone()).into_iter().collect(),
    }
}

/// One line of `/proc/PID/mountinfo`.
#[derive(Debug)]
struct Mount<'a> {
    /// What of the file system is mounted.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // A list of optional fields, of any length, ends with a dash.
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        Some(Self { root: unescape(root), point: unescape(point), kind, options })
    }

    /// Where `path` of the file system lies in this mount, if it does.
    fn below<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let below = path.strip_prefix(&self.root).ok()?;
        // A group outside of this process's namespace is told with leading `..` parts.
        (!below.starts_with("..")).then_some(below)
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }
}

/// The kernel writes a blank, a line's end and a backslash in a path as three octal digits.
fn unescape(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    PathBuf::from(plain)
}

fn read(group: &Path, file: &str) -> Option<String> {
    fs::read_to_string(group.join(file)).ok()
}

/// `cpu.max` of version 2: microseconds of run time per period, or `max`, and the period.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1; a quota of -1 is none.
fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    ratio(quota, period)
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// `memory.max` or `memory.limit_in_bytes`: bytes, or `max`.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_MOUNT: &str =
        "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn version_2_gives_the_group_and_all_above_it() {
        let groups = Groups::find("0::/user.slice/app.scope\n", V2_MOUNT, "cpu");
        let root = "/sys/fs/cgroup";
        let parts =
            ["/user.slice/app.scope", "/user.slice", "/"].map(|part| format!("{root}{part}"));
        assert_eq!(groups.v2, parts.map(PathBuf::from));
        assert_eq!(groups.v1, paths(&[]));
    }

    #[test]
    fn version_1_takes_the_hierarchy_of_the_controller() {
        let cgroup =
            "4:memory:/pool/one\n3:cpuset:/\n2:cpu,cpuacct:/job\n1:name=systemd:/x\n0::/\n";
        let cpu = Groups::find(cgroup, V1_MOUNTS, "cpu");
        assert_eq!(
            cpu.v1,
            paths(&["/sys/fs/cgroup/cpu,cpuacct/job", "/sys/fs/cgroup/cpu,cpuacct"])
        );
        assert_eq!(cpu.v2, paths(&[]), "version 2 is not mounted");
        let memory = Groups::find(cgroup, V1_MOUNTS, "memory");
        assert_eq!(memory.v1.len(), 3);
        assert_eq!(memory.v1[0], Path::new("/sys/fs/cgroup/memory/pool/one"));
    }

    #[test]
    fn both_versions_may_be_mounted() {
        let mounts =
            format!("{V1_MOUNTS}38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n");
        let groups = Groups::find("2:memory:/a\n0::/b\n", &mounts, "memory");
        assert_eq!(groups.v1[0], Path::new("/sys/fs/cgroup/memory/a"));
        assert_eq!(groups.v2[0], Path::new("/sys/fs/cgroup/unified/b"));
    }

    #[test]
    fn mount_that_begins_at_the_container_is_followed_from_there() {
        let mount = "40 31 0:31 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let within = Groups::find("4:memory:/docker/c1/job\n", mount, "memory");
        assert_eq!(within.v1, paths(&["/sys/fs/cgroup/memory/job", "/sys/fs/cgroup/memory"]));
        let elsewhere = Groups::find("4:memory:/docker/c2\n", mount, "memory");
        assert_eq!(elsewhere.v1, paths(&["/sys/fs/cgroup/memory"]));
        let outside = Groups::find("0::/../other\n", V2_MOUNT, "memory");
        assert_eq!(outside.v2, paths(&["/sys/fs/cgroup"]));
    }

    #[test]
    fn longest_chain_wins_over_a_mount_of_a_part() {
        let part = "90 1 0:30 /user.slice /mnt/part rw - cgroup2 cgroup2 rw\n";
        let groups = Groups::find("0::/user.slice/a\n", &format!("{part}{V2_MOUNT}"), "cpu");
        assert_eq!(groups.v2[0], Path::new("/sys/fs/cgroup/user.slice/a"));
    }

    #[test]
    fn blanks_in_paths_are_unescaped() {
        let mount = r"35 24 0:30 / /my\040cgroups\134x rw - cgroup2 cgroup2 rw";
        let groups = Groups::find("0::/", mount, "cpu");
        assert_eq!(groups.v2, paths(&[r"/my cgroups\x"]));
        assert_eq!(unescape(r"/a\9"), Path::new(r"/a\9"));
    }

    #[test]
    fn nonsense_gives_no_groups() {
        assert_eq!(Groups::find("", "", "cpu"), Groups::default());
        assert_eq!(Groups::find("x\n1:cpu\n", "1 2 3\n - \n", "cpu"), Groups::default());
        assert_eq!(Groups::find("0::/a\n1:cpu:/b\n", "", "cpu"), Groups::default());
    }

    #[test]
    fn least_of_all_groups_counts() {
        let groups = Groups { v1: paths(&["/3"]), v2: paths(&["/5", "/none", "/4"]) };
        let number = |group: &Path| group.to_str()?[1..].parse::<u64>().ok();
        assert_eq!(groups.least(number, number, u64::min), Some(3));
        assert_eq!(groups.least(number, |_| None, u64::min), Some(4));
        assert_eq!(Groups::default().least(number, number, u64::min), None);
    }

    #[test]
    fn quotas_are_shares_of_the_period() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max(""), None);
        assert_eq!(parse_cfs("50000\n", "100000\n"), Some(0.5));
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("50000\n", "0\n"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(parse_limit("1073741824\n"), Some(1 << 30));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(
            parse_mem_total("MemTotal:       16314 kB\nMemFree: 5 kB\n"),
            Some(16314 * 1024)
        );
        assert_eq!(parse_mem_total("MemFree: 5 kB\n"), None);
    }

    #[test]
    fn figures_of_this_machine_agree() {
        assert!((1..=machine_cpus()).contains(&available_cpus()));
        assert!(available_cpus() <= affinity_count());
        assert!((available_cpus()..=machine_cpus()).contains(&shared_cpus()));
        assert!((1..=machine_memory()).contains(&memory_limit()));
    }

    #[test]
    fn kills_for_want_of_memory_are_read_in_both_versions() {
        assert_eq!(parse_kills("low 0\noom 2\noom_kill 3\noom_group_kill 0\n"), Some(3));
        assert_eq!(parse_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(parse_kills("low 0\n"), None);
    }

    #[test]
    fn memory_of_its_own_is_what_is_resident_and_not_shared() {
        assert_eq!(parse_statm("900 500 120 1 0 80 0\n"), Some(380));
        assert_eq!(parse_statm("900\n"), None);
        let before = own_memory().unwrap();
        let touched = vec![1_u8; 64 << 20];
        assert!(own_memory().unwrap() >= before + (60 << 20), "{}", touched.len());
    }

    #[test]
    fn thread_runs_where_it_was_told_to() {
        let first = *allowed_cpus().unwrap().first().unwrap();
        let pinned = std::thread::spawn(move || {
            run_on(&[first]).unwrap();
            (allowed_cpus().unwrap(), run_on(&[]).is_err())
        });
        assert_eq!(pinned.join().unwrap(), (vec![first], true));
    }

    #[test]
    fn affinity_of_a_thread_is_counted() {
        let one = std::thread::spawn(|| {
            let cpu = current_cpu();
            let mut set = rustix::thread::CpuSet::new();
            set.set(cpu as usize);
            rustix::thread::sched_setaffinity(None, &set).unwrap();
            (affinity_count(), current_cpu() == cpu)
        });
        assert_eq!(one.join().unwrap(), (1, true));
    }
}
