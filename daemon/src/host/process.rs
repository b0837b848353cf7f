//! What the process uses of the machine.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process uses. `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Memory in bytes that is in use.
    pub(crate) resident: Option<u64>,
    /// Address space in bytes.
    pub(crate) virtual_size: Option<u64>,
    /// Threads.
    pub(crate) threads: Option<u64>,
    /// Open descriptors.
    pub(crate) descriptors: Option<u64>,
    /// The most descriptors that it may have.
    pub(crate) most_descriptors: Option<u64>,
    /// Processor time of all threads.
    pub(crate) processor_time: Duration,
}

impl Usage {
    /// The use at this moment. Reads files of the kernel, which takes some 50 µs, and on old kernels some microseconds more
    /// for each open descriptor.
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            resident: kib(&status, "VmRSS:"),
            virtual_size: kib(&status, "VmSize:"),
            threads: number(&status, "Threads:"),
            descriptors: descriptors(),
            most_descriptors: getrlimit(Resource::Nofile).current,
            processor_time: Duration::try_from(time).unwrap_or_default(),
        }
    }
}

/// The number behind a field's name.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    number(status, name).map(|kib| kib * 1024)
}

/// Open descriptors, without the one that counts them.
fn descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2, the folder's size is their number.
    match fs::metadata(FOLDER).ok()?.len() {
        0 => fs::read_dir(FOLDER).ok().map(|all| (all.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something_of_everything() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let usage = Usage::read();
        for (name, value) in [
            ("resident", usage.resident),
            ("virtual_size", usage.virtual_size),
            ("threads", usage.threads),
            ("descriptors", usage.descriptors),
        ] {
            assert!(value.is_some_and(|value| value > 0), "{name}: {usage:?}");
        }
        assert!(usage.resident < usage.virtual_size && usage.processor_time > Duration::ZERO);
        drop(file);
    }
}
