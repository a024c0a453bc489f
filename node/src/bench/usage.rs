//! What a process used, as the kernel counts it.

use std::path::PathBuf;

/// The kernel's unit of processor time for programs, on every platform that Linux runs this on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Seconds of processor time.
    pub(super) cpu_s: f64,
    /// Bytes of memory it holds now.
    pub(super) rss_bytes: u64,
    /// Bytes it caused to be written to disk.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// What the process used so far; `None` if it is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/{name}"))).ok();
        Some(Self {
            cpu_s: cpu(&read("stat")?)?,
            rss_bytes: field(&read("status")?, "VmRSS:")?.saturating_mul(1024),
            written_bytes: field(&read("io")?, "write_bytes:")?,
        })
    }
}

/// User and system time; the name in parentheses may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernel_s_lines() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(field("VmPeak:\t  9 kB\nVmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(
            field("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n", "write_bytes:"),
            Some(4096)
        );
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Usage::of(std::process::id()).unwrap().rss_bytes > 0);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
