//! The paths of the node's API: what each asks for, and which right it takes. As kubelet has them
//! (`pkg/kubelet/server`), so that what is allowed to users today is allowed here and no more.

use std::borrow::Cow;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/healthz` and what is below it.
    Health,
    /// `/pods`: the pods that the node is to run.
    Pods,
    /// `/runningpods/`: the pods of which something runs.
    RunningPods,
    /// `/containerLogs/NAMESPACE/POD/CONTAINER`.
    Logs(Target),
    /// `/exec/NAMESPACE/POD[/UID]/CONTAINER`.
    Exec(Target),
    /// `/attach/NAMESPACE/POD[/UID]/CONTAINER`.
    Attach(Target),
    /// `/run/NAMESPACE/POD[/UID]/CONTAINER`.
    Run(Target),
    /// `/portForward/NAMESPACE/POD[/UID]`; the container is empty.
    PortForward(Target),
    /// `/checkpoint/NAMESPACE/POD/CONTAINER`.
    Checkpoint(Target),
    /// `/configz`: the configuration in force.
    Configuration,
    /// `/metrics`.
    Metrics,
    /// `/metrics/probes`.
    ProbeMetrics,
    /// `/logs/PATH`: a file or folder of the node's logs.
    SystemLogs(String),
    /// `/debug/flags/v`: how much the log tells.
    Verbosity,
    /// `/debug/threads`: what the agent's threads do.
    Threads,
    /// `/debug/pprof/…`: profiles of Go programs.
    Profile,
    /// `/stats/summary`.
    Summary,
    /// `/metrics/resource`.
    ResourceMetrics,
    /// `/metrics/cadvisor`.
    CadvisorMetrics,
    /// Nothing that is there.
    Unknown,
}

/// A pod, or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID, if that is asked for.
    pub uid: Option<String>,
    /// The container.
    pub container: String,
}

impl Route {
    /// Whether it is there without authentication on the read-only port.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(
            self,
            Self::Health
                | Self::Pods
                | Self::Metrics
                | Self::Summary
                | Self::ResourceMetrics
                | Self::CadvisorMetrics
                | Self::ProbeMetrics
        )
    }

    /// Whether `enableDebuggingHandlers` turns it off.
    #[must_use]
    pub fn is_debugging(&self) -> bool {
        !self.is_public() && *self != Self::Unknown
    }

    /// What it is counted as.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Pods => "pods",
            Self::RunningPods => "runningpods",
            Self::Logs(_) => "containerLogs",
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::Run(_) => "run",
            Self::PortForward(_) => "portForward",
            Self::Checkpoint(_) => "checkpoint",
            Self::Configuration => "configz",
            Self::Metrics => "metrics",
            Self::ProbeMetrics => "metrics/probes",
            Self::SystemLogs(_) => "logs",
            Self::Verbosity => "debug/flags/v",
            Self::Threads => "debug/threads",
            Self::Profile => "debug/pprof",
            Self::Summary => "stats",
            Self::ResourceMetrics => "metrics/resource",
            Self::CadvisorMetrics => "metrics/cadvisor",
            Self::Unknown => "other",
        }
    }

    /// Whether it lasts as long as somebody listens.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Attach(_) | Self::PortForward(_))
    }

    /// The methods that it takes.
    #[must_use]
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) | Self::Summary => &["GET", "POST"],
            Self::Run(_) | Self::Checkpoint(_) => &["POST"],
            Self::Verbosity => &["PUT"],
            _ => &["GET", "HEAD"],
        }
    }
}

/// Percent-decoding of a path; `None` if it is no text then.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.extend(u8::try_from(high * 16 + low));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The values of a query's parameter, in their order. What cannot be decoded is left out.
pub fn parameters<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = String> + 'q {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |text: &str| decode(&text.replace('+', " ")).map(Cow::into_owned);
        (text(key)? == name).then(|| text(value)).flatten()
    })
}

/// What a path asks for, decoded. A path is taken as it is: nothing in it is resolved or left out, so that it cannot
/// ask for another thing than what it takes the right for.
#[must_use]
pub fn route(path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if !path.starts_with('/') || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Route::Unknown;
    }
    let target = |parts: &[&str]| {
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let text = |part: &&str| (*part).to_owned();
        match parts {
            [namespace, pod, rest @ .., container] if rest.len() <= 1 => Some(Target {
                namespace: text(namespace),
                pod: text(pod),
                uid: rest.first().map(text),
                container: text(container),
            }),
            _ => None,
        }
    };
    let container = |parts: &[&str], route: fn(Target) -> Route| target(parts).map_or(Route::Unknown, route);
    match parts.as_slice() {
        ["healthz", ..] => Route::Health,
        ["pods"] | ["pods", ""] => Route::Pods,
        ["runningpods"] | ["runningpods", ""] => Route::RunningPods,
        ["configz"] | ["configz", ""] => Route::Configuration,
        ["metrics"] | ["metrics", ""] => Route::Metrics,
        ["metrics", "probes"] => Route::ProbeMetrics,
        ["debug", "flags", "v"] => Route::Verbosity,
        ["debug", "threads"] => Route::Threads,
        ["debug", "pprof", ..] => Route::Profile,
        ["logs", rest @ ..] => Route::SystemLogs(rest.join("/")),
        ["metrics", "resource"] => Route::ResourceMetrics,
        ["metrics", "cadvisor"] => Route::CadvisorMetrics,
        ["stats", "summary"] | ["stats", "summary", ""] => Route::Summary,
        ["containerLogs", rest @ ..] if rest.len() == 3 => container(rest, Route::Logs),
        ["exec", rest @ ..] => container(rest, Route::Exec),
        ["attach", rest @ ..] => container(rest, Route::Attach),
        ["run", rest @ ..] => container(rest, Route::Run),
        ["checkpoint", rest @ ..] if rest.len() == 3 => container(rest, Route::Checkpoint),
        ["portForward", namespace, pod, rest @ ..]
            if rest.len() <= 1 && parts.iter().all(|part| !part.is_empty()) =>
        {
            Route::PortForward(Target {
                namespace: (*namespace).to_owned(),
                pod: (*pod).to_owned(),
                uid: rest.first().map(|uid| (*uid).to_owned()),
                container: String::new(),
            })
        }
        _ => Route::Unknown,
    }
}

/// The verb on the Node that a method is.
#[must_use]
pub fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        // No right of that name can be given.
        _ => "",
    }
}

/// The subresources of the Node of which the right to one suffices for a path (decoded), the narrowest first.
#[must_use]
pub fn subresources(path: &str, fine_grained: bool) -> Vec<&'static str> {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/stats") {
        return vec!["stats"];
    }
    if below("/metrics") {
        return vec!["metrics"];
    }
    if below("/logs") {
        return vec!["log"];
    }
    if below("/checkpoint") {
        return vec!["checkpoint"];
    }
    let fine = [
        ("/pods", "pods"),
        ("/runningpods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/statusz", "statusz"),
    ];
    let fine = fine.into_iter().find(|(root, _)| fine_grained && below(root)).map(|(_, name)| name);
    fine.into_iter().chain(["proxy"]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> Target {
        let [namespace, pod, container] = [namespace, pod, container].map(str::to_owned);
        Target { namespace, pod, uid: uid.map(str::to_owned), container }
    }

    #[test]
    fn paths_ask_for_what_they_do_at_kubelet() {
        let cases = [
            ("/healthz", Route::Health),
            ("/healthz/syncloop", Route::Health),
            ("/pods", Route::Pods),
            ("/pods/", Route::Pods),
            ("/runningpods/", Route::RunningPods),
            ("/configz", Route::Configuration),
            ("/metrics", Route::Metrics),
            ("/metrics/probes", Route::ProbeMetrics),
            ("/debug/flags/v", Route::Verbosity),
            ("/debug/threads", Route::Threads),
            ("/debug/pprof/heap", Route::Profile),
            ("/logs", Route::SystemLogs(String::new())),
            ("/logs/", Route::SystemLogs(String::new())),
            ("/logs/pods/a.log", Route::SystemLogs("pods/a.log".to_owned())),
            ("/metrics/resource", Route::ResourceMetrics),
            ("/metrics/cadvisor", Route::CadvisorMetrics),
            ("/stats/summary", Route::Summary),
            ("/stats/summary/", Route::Summary),
            ("/containerLogs/a/b/c", Route::Logs(target("a", "b", None, "c"))),
            ("/exec/a/b/c", Route::Exec(target("a", "b", None, "c"))),
            ("/exec/a/b/u/c", Route::Exec(target("a", "b", Some("u"), "c"))),
            ("/attach/a/b/u/c", Route::Attach(target("a", "b", Some("u"), "c"))),
            ("/run/a/b/c", Route::Run(target("a", "b", None, "c"))),
            ("/checkpoint/a/b/c", Route::Checkpoint(target("a", "b", None, "c"))),
            ("/portForward/a/b", Route::PortForward(target("a", "b", None, ""))),
            ("/portForward/a/b/u", Route::PortForward(target("a", "b", Some("u"), ""))),
        ];
        for (path, expected) in cases {
            assert_eq!(route(path), expected, "{path}");
        }
        for path in [
            "",
            "/",
            "pods",
            "//pods",
            "/pods/x",
            "/exec",
            "/exec/a/b",
            "/exec/a//c",
            "/exec/a/b/u/c/d",
            "/exec/a/../c",
            "/metrics/../pods",
            "/logs/../pods",
            "/logs/./a",
            "/logsx",
            "/debug",
            "/debug/flags",
            "/debug/flags/v/x",
            "/containerLogs/a/b/u/c",
            "/portForward/a",
            "/portForward/a/b/u/c",
            "/portForward/a/",
            "/checkpoint/a/b/u/c",
            "/livez",
            "/stats",
            "/stats/container",
            "/stats/summary/x",
            "/metrics/resource/x",
        ] {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn rights_are_those_of_kubelet() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("/stats/summary", &["stats"], &["stats"]),
            ("/metrics", &["metrics"], &["metrics"]),
            ("/metrics/cadvisor", &["metrics"], &["metrics"]),
            ("/metricsx", &["proxy"], &["proxy"]),
            ("/logs/", &["log"], &["log"]),
            ("/checkpoint/a/b/c", &["checkpoint"], &["checkpoint"]),
            ("/pods", &["proxy"], &["pods", "proxy"]),
            ("/pods/", &["proxy"], &["pods", "proxy"]),
            ("/podsx", &["proxy"], &["proxy"]),
            ("/runningpods/", &["proxy"], &["pods", "proxy"]),
            ("/healthz/log", &["proxy"], &["healthz", "proxy"]),
            ("/configz", &["proxy"], &["configz", "proxy"]),
            ("/exec/a/b/c", &["proxy"], &["proxy"]),
            ("/containerLogs/a/b/c", &["proxy"], &["proxy"]),
            ("/nothing", &["proxy"], &["proxy"]),
        ];
        for (path, coarse, fine) in cases {
            assert_eq!(subresources(path, false), *coarse, "{path}");
            assert_eq!(subresources(path, true), *fine, "{path}");
        }
        assert_eq!(
            ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].map(verb),
            ["get", "create", "update", "patch", "delete", ""]
        );
    }

    #[test]
    fn texts_are_decoded_once() {
        assert_eq!(decode("/a%2Fb%25").as_deref(), Some("/a/b%"));
        for broken in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
        let query = "command=sh&command=-c&command=echo+a%26b&tty=1&bad=%ff&x";
        assert_eq!(parameters(query, "command").collect::<Vec<_>>(), ["sh", "-c", "echo a&b"]);
        assert_eq!(parameters(query, "tty").next().as_deref(), Some("1"));
        assert_eq!(parameters(query, "x").next().as_deref(), Some(""));
        assert_eq!(parameters(query, "bad").next(), None);
        assert_eq!(parameters("", "x").next(), None);
    }

    proptest! {
        /// Whatever is asked for is asked for with a right that is as narrow as kubelet's: nothing that acts on
        /// containers is to be had with a right to look at figures.
        #[test]
        fn no_path_acts_with_a_right_to_look(path in "(/(exec|run|metrics|stats|logs|pods|\\.\\.|a|%2e|)){1,6}") {
            let found = route(&path);
            let own = matches!(found, Route::RunningPods | Route::Configuration | Route::Checkpoint(_) | Route::SystemLogs(_));
            if found.is_debugging() && !own {
                prop_assert_eq!(subresources(&path, true), vec!["proxy"]);
            }
        }
    }
}
