//! What is written of a sample for metrics-server and for cAdvisor's dashboards.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::{
    api::{
        PodFullName,
        usage::{
            CgroupUsage, ContainerUsage, CpuLimits, DeviceIo, SandboxUsage, Stalled, StoreUsage, TaskUsage,
            Throttling,
        },
    },
    server::node_api::resource,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn measured(cgroup: &str, total_ns: u64, working_set: u64) -> Measured {
    Measured {
        cgroup: cgroup.into(),
        at: at(100),
        usage: CgroupUsage {
            cpu: Some(CpuUsage {
                total_ns,
                throttling: Some(Throttling { periods: 5, throttled_periods: 4, throttled_ns: 3_000_000 }),
                limits: Some(CpuLimits { shares: 102, period_us: 100_000, quota_us: Some(5_000) }),
                ..CpuUsage::default()
            }),
            memory: Some(MemoryUsage {
                working_set,
                swap: Some(3),
                swap_limit: Some(10),
                oom_kills: Some(1),
                ..MemoryUsage::default()
            }),
            tasks: Some(TaskUsage { threads: 7, most: None }),
            io: vec![DeviceIo {
                device: "/dev/sda".into(),
                read_bytes: 1,
                written_bytes: 2,
                reads: 3,
                writes: 4,
            }],
            cpu_pressure: Some(Pressure {
                some: Stalled { total_us: 2_000_000, ..Stalled::default() },
                full: Stalled::default(),
            }),
            ..CgroupUsage::default()
        },
        nano_cores: None,
        processes: Some(2),
    }
}

fn container(id: &str, cgroup: &str) -> ContainerUsage {
    ContainerUsage {
        name: "main".into(),
        id: id.into(),
        attempt: 1,
        image: "busybox".into(),
        created: at(50),
        started: at(51),
        measured: measured(cgroup, 1_500_000_000, 40),
    }
}

fn pod(uid: &str, created: i64, prefix: &str) -> PodUsage {
    PodUsage {
        uid: uid.into(),
        name: PodFullName::new("ns", "p"),
        created: at(created),
        measured: Some(measured(&format!("/kubepods/pod{uid}"), 2_000_000_000, 90)),
        sandbox: SandboxUsage {
            id: "sb".into(),
            attempt: 0,
            measured: Some(measured(&format!("/kubepods/pod{uid}/{prefix}sb"), 1, 1)),
        },
        containers: vec![container("c1", &format!("/kubepods/pod{uid}/{prefix}c1"))],
        network: Some((
            at(99),
            vec![InterfaceUsage { name: "eth0".into(), rx_bytes: 5, ..InterfaceUsage::default() }],
        )),
    }
}

fn usage(pods: Vec<PodUsage>) -> NodeUsage {
    NodeUsage {
        at: at(98),
        root: Some(measured("/", 5_000_000_000, 700)),
        over_pods: vec![measured("/kubepods", 9, 9)],
        system: vec![("pods", measured("/kubepods", 9, 9))],
        swap: Some((11, 12)),
        network: vec![InterfaceUsage { name: "ens3".into(), ..InterfaceUsage::default() }],
        tasks: None,
        pods,
    }
}

fn disks() -> DisksUsage {
    let fs = FsUsage { device: "/dev/sda1".into(), capacity: 100, used: 30, ..FsUsage::default() };
    let disk = DiskUsage { bytes: Some(1000), inodes: None };
    DisksUsage {
        at: at(97),
        root: Some(fs.clone()),
        layers: [("c1".into(), StoreUsage { at: at(96), disk, fs: Some(fs) })].into(),
        logs: [(("u".into(), "main".into()), DiskUsage { bytes: Some(24), inodes: Some(1) })].into(),
        ..DisksUsage::default()
    }
}

fn machine() -> MachineLabels {
    MachineLabels {
        cpus: 2,
        memory_bytes: 4096,
        kernel_version: "6.1".into(),
        os_image: "Debian".into(),
        boot_id: "b".into(),
        ..MachineLabels::default()
    }
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|own| own == *line), "{line}\nis not in\n{text}");
    }
}

/// No series is there twice.
#[track_caller]
fn unique(text: &str) {
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once('}').map_or(line.split(' ').next().unwrap(), |(series, _)| series);
        assert!(seen.insert(series.to_owned()), "{series} is there twice\n{text}");
    }
}

#[test]
fn metrics_server_finds_what_it_decodes() {
    let text = resource::families(Some(&usage(vec![pod("u", 40, "")]))).text().unwrap();
    has(
        &text,
        &[
            "# TYPE node_cpu_usage_seconds_total counter",
            "node_cpu_usage_seconds_total 5 100000",
            "node_memory_working_set_bytes 700 100000",
            "node_swap_usage_bytes 11 98000",
            "container_cpu_usage_seconds_total{container=\"main\",namespace=\"ns\",pod=\"p\"} 1.5 100000",
            "container_memory_working_set_bytes{container=\"main\",namespace=\"ns\",pod=\"p\"} 40 100000",
            "container_start_time_seconds{container=\"main\",namespace=\"ns\",pod=\"p\"} 50",
            "container_swap_usage_bytes{container=\"main\",namespace=\"ns\",pod=\"p\"} 3 100000",
            "container_swap_limit_bytes{container=\"main\",namespace=\"ns\",pod=\"p\"} 10 100000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2 100000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 90 100000",
            "pod_swap_usage_bytes{namespace=\"ns\",pod=\"p\"} 3 100000",
            "resource_scrape_error 0",
        ],
    );
    unique(&text);
}

#[test]
fn of_two_pods_of_one_name_the_newer_counts() {
    let mut older = pod("u", 40, "");
    older.measured = Some(measured("/kubepods/podu", 1, 1));
    let both = usage(vec![older, pod("v", 41, "")]);
    let text = resource::families(Some(&both)).text().unwrap();
    unique(&text);
    has(&text, &["pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 90 100000"]);
    // By their cgroups they are told apart.
    let text = families(Some(&both), &disks(), &machine()).text().unwrap();
    unique(&text);
    assert!(text.contains("id=\"/kubepods/podu/c1\"") && text.contains("id=\"/kubepods/podv/c1\""));
}

#[test]
fn without_a_sample_there_is_an_error_to_alert_on() {
    let text = resource::families(None).text().unwrap();
    assert_eq!(text.lines().last(), Some("resource_scrape_error 1"));
    let text = families(None, &DisksUsage::default(), &machine()).text().unwrap();
    has(
        &text,
        &[
            "container_scrape_error 1",
            "machine_memory_bytes{boot_id=\"b\",machine_id=\"\",system_uuid=\"\"} 4096",
        ],
    );
    let mut rootless = usage(vec![pod("u", 40, "")]);
    rootless.root = None;
    rootless.pods[0].measured = None;
    let text = resource::families(Some(&rootless)).text().unwrap();
    has(
        &text,
        &["resource_scrape_error 1", "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 1.5 100000"],
    );
}

#[test]
fn cadvisors_series_have_its_labels() {
    let text = families(Some(&usage(vec![pod("u", 40, "")])), &disks(), &machine()).text().unwrap();
    let own = "container=\"main\"";
    let rest = "id=\"/kubepods/podu/c1\",image=\"busybox\"";
    let names = "name=\"c1\",namespace=\"ns\",pod=\"p\"";
    let of_container = |before: &str, between: &str, after: &str| {
        format!("{{{own}{before},{rest}{between},{names}{after}}}")
    };
    let plain = of_container("", "", "");
    has(
        &text,
        &[
            &format!(
                "container_cpu_usage_seconds_total{} 1.5 100000",
                of_container(",cpu=\"total\"", "", "")
            ),
            &format!("container_memory_working_set_bytes{plain} 40 100000"),
            &format!("container_start_time_seconds{plain} 51"),
            &format!("container_spec_cpu_quota{plain} 5000"),
            &format!("container_cpu_cfs_throttled_periods_total{plain} 4 100000"),
            &format!("container_cpu_cfs_throttled_seconds_total{plain} 0.003 100000"),
            &format!("container_oom_events_total{plain} 1 100000"),
            &format!("container_processes{plain} 2 100000"),
            &format!("container_threads{plain} 7 100000"),
            &format!("container_threads_max{plain} 0 100000"),
            &format!("container_pressure_cpu_waiting_seconds_total{plain} 2 100000"),
            &format!(
                "container_fs_writes_bytes_total{} 2 100000",
                of_container(",device=\"/dev/sda\"", "", "")
            ),
            &format!("container_fs_usage_bytes{} 1024 96000", of_container(",device=\"/dev/sda1\"", "", "")),
            // The pod's own cgroup is no container, nor is the sandbox.
            "container_memory_working_set_bytes{container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"ns\",pod=\"p\"} 90 100000",
            "container_memory_working_set_bytes{container=\"\",id=\"/kubepods/podu/sb\",image=\"\",name=\"sb\",namespace=\"ns\",pod=\"p\"} 1 100000",
            "container_network_receive_bytes_total{container=\"\",id=\"/kubepods/podu/sb\",image=\"\",interface=\"eth0\",name=\"sb\",namespace=\"ns\",pod=\"p\"} 5 99000",
            "container_network_receive_bytes_total{container=\"\",id=\"/\",image=\"\",interface=\"ens3\",name=\"\",namespace=\"\",pod=\"\"} 0 98000",
            "container_spec_memory_limit_bytes{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} 4096",
            "machine_cpu_cores{boot_id=\"b\",machine_id=\"\",system_uuid=\"\"} 2",
            "cadvisor_version_info{cadvisorRevision=\"\",cadvisorVersion=\"\",dockerVersion=\"\",kernelVersion=\"6.1\",osVersion=\"Debian\"} 1",
            "container_scrape_error 0",
        ],
    );
    unique(&text);
    let with_network = text.lines().filter(|line| line.starts_with("container_network_receive_bytes_total"));
    assert_eq!(with_network.count(), 2, "a sum over a pod counts nothing twice");
}

#[test]
fn with_cri_o_names_are_as_dockers_were() {
    let text = families(Some(&usage(vec![pod("u", 40, "crio-")])), &disks(), &machine()).text().unwrap();
    has(
        &text,
        &[
            "container_processes{container=\"main\",id=\"/kubepods/podu/crio-c1\",image=\"busybox\",name=\"k8s_main_p_ns_u_1\",namespace=\"ns\",pod=\"p\"} 2 100000",
            "container_processes{container=\"POD\",id=\"/kubepods/podu/crio-sb\",image=\"\",name=\"k8s_POD_p_ns_u_0\",namespace=\"ns\",pod=\"p\"} 2 100000",
        ],
    );
    // One that runs nothing for the sandbox.
    let mut without = pod("u", 40, "crio-");
    without.sandbox.measured = None;
    let text = families(Some(&usage(vec![without])), &disks(), &machine()).text().unwrap();
    unique(&text);
    has(
        &text,
        &[
            "container_network_receive_bytes_total{container=\"\",id=\"/kubepods/podu\",image=\"\",interface=\"eth0\",name=\"\",namespace=\"ns\",pod=\"p\"} 5 99000",
        ],
    );
}
