//! cAdvisor's metrics that are told: names and types are its own.

use prometheus::proto::MetricType::{COUNTER, GAUGE};

use super::super::families::Kind;

pub(super) const SCRAPE_ERROR: Kind =
    ("container_scrape_error", "1 if the cgroups could not be measured, else 0.", GAUGE);
pub(super) const MACHINE_CPUS: Kind = ("machine_cpu_cores", "Logical CPUs.", GAUGE);
pub(super) const MACHINE_MEMORY: Kind = ("machine_memory_bytes", "Memory of the machine, bytes.", GAUGE);
pub(super) const MACHINE_SWAP: Kind = ("machine_swap_bytes", "Swap of the machine, bytes.", GAUGE);
pub(super) const MACHINE_SCRAPE_ERROR: Kind =
    ("machine_scrape_error", "1 if the machine could not be looked at, else 0.", GAUGE);
pub(super) const VERSION: Kind = (
    "cadvisor_version_info",
    "Always 1; kernel and operating system. There is no cAdvisor and no Docker in nodectl.",
    GAUGE,
);

pub(super) const LAST_SEEN: Kind =
    ("container_last_seen", "When it was last there, seconds since 1970.", GAUGE);
pub(super) const START_TIME: Kind =
    ("container_start_time_seconds", "When it was started, seconds since 1970.", GAUGE);

pub(super) const CPU: Kind = ("container_cpu_usage_seconds_total", "CPU time, seconds.", COUNTER);
pub(super) const CPU_USER: Kind =
    ("container_cpu_user_seconds_total", "CPU time in user mode, seconds.", COUNTER);
pub(super) const CPU_SYSTEM: Kind =
    ("container_cpu_system_seconds_total", "CPU time in the kernel, seconds.", COUNTER);
pub(super) const CFS_PERIODS: Kind =
    ("container_cpu_cfs_periods_total", "Periods of the CPU quota in which it ran.", COUNTER);
pub(super) const CFS_THROTTLED: Kind = (
    "container_cpu_cfs_throttled_periods_total",
    "Periods of the CPU quota in which it used the quota up.",
    COUNTER,
);
pub(super) const CFS_THROTTLED_TIME: Kind = (
    "container_cpu_cfs_throttled_seconds_total",
    "How long it was held for its CPU quota, seconds.",
    COUNTER,
);
pub(super) const CPU_SHARES: Kind = ("container_spec_cpu_shares", "Share of CPU time.", GAUGE);
pub(super) const CPU_PERIOD: Kind =
    ("container_spec_cpu_period", "Period of the CPU quota, microseconds.", GAUGE);
pub(super) const CPU_QUOTA: Kind = ("container_spec_cpu_quota", "CPU time in a period, microseconds.", GAUGE);

pub(super) const MEMORY: Kind =
    ("container_memory_usage_bytes", "Memory charged to it, with page cache, bytes.", GAUGE);
pub(super) const WORKING_SET: Kind = (
    "container_memory_working_set_bytes",
    "Memory charged to it without page cache that was not used lately, bytes.",
    GAUGE,
);
pub(super) const RSS: Kind = ("container_memory_rss", "Anonymous memory, bytes.", GAUGE);
pub(super) const CACHE: Kind = ("container_memory_cache", "Page cache, bytes.", GAUGE);
pub(super) const MAPPED_FILE: Kind =
    ("container_memory_mapped_file", "Files mapped into memory, bytes.", GAUGE);
pub(super) const ACTIVE_FILE: Kind =
    ("container_memory_total_active_file_bytes", "Page cache that was used lately, bytes.", GAUGE);
pub(super) const INACTIVE_FILE: Kind =
    ("container_memory_total_inactive_file_bytes", "Page cache that was not used lately, bytes.", GAUGE);
pub(super) const SWAP: Kind = ("container_memory_swap", "Swap in use, bytes.", GAUGE);
pub(super) const KERNEL: Kind =
    ("container_memory_kernel_usage", "Memory of the kernel charged to it, bytes.", GAUGE);
pub(super) const MEMORY_PEAK: Kind =
    ("container_memory_max_usage_bytes", "The most memory that was charged to it, bytes.", GAUGE);
pub(super) const FAILCNT: Kind =
    ("container_memory_failcnt", "How often the memory limit was reached.", COUNTER);
pub(super) const FAILURES: Kind = (
    "container_memory_failures_total",
    "Page faults, and those for which something was read from disk.",
    COUNTER,
);
pub(super) const OOM_EVENTS: Kind =
    ("container_oom_events_total", "Processes killed for want of memory.", COUNTER);
pub(super) const MEMORY_LIMIT: Kind =
    ("container_spec_memory_limit_bytes", "Memory limit, bytes; 0 is none.", GAUGE);
pub(super) const SWAP_LIMIT: Kind =
    ("container_spec_memory_swap_limit_bytes", "Swap limit, bytes; 0 is none.", GAUGE);
pub(super) const RESERVATION: Kind = (
    "container_spec_memory_reservation_limit_bytes",
    "Memory that it is to be brought back to under pressure, bytes; 0 is none.",
    GAUGE,
);

pub(super) const PROCESSES: Kind = ("container_processes", "Processes.", GAUGE);
pub(super) const THREADS: Kind = ("container_threads", "Threads.", GAUGE);
pub(super) const THREADS_MAX: Kind =
    ("container_threads_max", "Threads that there may be; 0 is no limit.", GAUGE);

pub(super) const READ_BYTES: Kind =
    ("container_fs_reads_bytes_total", "Bytes read from a block device.", COUNTER);
pub(super) const READS: Kind = ("container_fs_reads_total", "Reads from a block device.", COUNTER);
pub(super) const WRITTEN_BYTES: Kind =
    ("container_fs_writes_bytes_total", "Bytes written to a block device.", COUNTER);
pub(super) const WRITES: Kind = ("container_fs_writes_total", "Writes to a block device.", COUNTER);
pub(super) const FS_LIMIT: Kind = ("container_fs_limit_bytes", "Size of the file system, bytes.", GAUGE);
pub(super) const FS_USAGE: Kind =
    ("container_fs_usage_bytes", "What it takes on the file system, bytes.", GAUGE);
pub(super) const FS_INODES: Kind = ("container_fs_inodes_total", "Inodes of the file system.", GAUGE);
pub(super) const FS_INODES_FREE: Kind =
    ("container_fs_inodes_free", "Free inodes of the file system.", GAUGE);

pub(super) const RX_BYTES: Kind = ("container_network_receive_bytes_total", "Bytes received.", COUNTER);
pub(super) const RX_PACKETS: Kind = ("container_network_receive_packets_total", "Packets received.", COUNTER);
pub(super) const RX_ERRORS: Kind =
    ("container_network_receive_errors_total", "Errors at receiving.", COUNTER);
pub(super) const RX_DROPPED: Kind =
    ("container_network_receive_packets_dropped_total", "Packets dropped at receiving.", COUNTER);
pub(super) const TX_BYTES: Kind = ("container_network_transmit_bytes_total", "Bytes sent.", COUNTER);
pub(super) const TX_PACKETS: Kind = ("container_network_transmit_packets_total", "Packets sent.", COUNTER);
pub(super) const TX_ERRORS: Kind = ("container_network_transmit_errors_total", "Errors at sending.", COUNTER);
pub(super) const TX_DROPPED: Kind =
    ("container_network_transmit_packets_dropped_total", "Packets dropped at sending.", COUNTER);

pub(super) const CPU_WAITING: Kind = (
    "container_pressure_cpu_waiting_seconds_total",
    "How long at least one task waited for a CPU, seconds.",
    COUNTER,
);
pub(super) const CPU_STALLED: Kind = (
    "container_pressure_cpu_stalled_seconds_total",
    "How long all tasks waited for a CPU, seconds.",
    COUNTER,
);
pub(super) const MEMORY_WAITING: Kind = (
    "container_pressure_memory_waiting_seconds_total",
    "How long at least one task waited for memory, seconds.",
    COUNTER,
);
pub(super) const MEMORY_STALLED: Kind = (
    "container_pressure_memory_stalled_seconds_total",
    "How long all tasks waited for memory, seconds.",
    COUNTER,
);
pub(super) const IO_WAITING: Kind = (
    "container_pressure_io_waiting_seconds_total",
    "How long at least one task waited for a block device, seconds.",
    COUNTER,
);
pub(super) const IO_STALLED: Kind = (
    "container_pressure_io_stalled_seconds_total",
    "How long all tasks waited for a block device, seconds.",
    COUNTER,
);
