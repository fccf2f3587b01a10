//! The operator socket: who may ask, and what is answered.

use std::os::unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    api::view::{PodEnd, PodProgress, PodStep},
    server::local_client::{self, ClientError},
};

struct View;

impl AgentView for View {
    fn pods(&self) -> Vec<PodView> {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        let progress = PodProgress {
            step: PodStep::Running,
            detail: "all containers run".into(),
            since: Timestamp::UNIX_EPOCH,
            last_error: None,
            next: None,
        };
        let (pod, status) = (Arc::new(pod), Arc::new(PodStatus::default()));
        vec![PodView {
            uid: "u1".into(),
            pod,
            status,
            progress,
            end: PodEnd::No,
            observed: true,
            offline: false,
        }]
    }
    fn health(&self) -> Vec<HealthCheck> {
        vec![HealthCheck { name: "ping".into(), ok: true, fatal: true, message: String::new() }]
    }
    fn input_problems(&self) -> Vec<(String, String)> {
        vec![("/etc/m/a.yaml".into(), "line 3: what?".into())]
    }
}

fn running(path: &Path) -> (CancellationToken, tokio::task::JoinHandle<Result<(), SocketError>>) {
    let stop = CancellationToken::new();
    let socket = OperatorSocket::bind(path).unwrap();
    (stop.clone(), tokio::spawn(socket.serve(Arc::new(View), stop)))
}

#[tokio::test]
async fn pods_and_health_are_served_and_the_socket_goes_with_the_agent() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("run/nodectl.sock");
    let (stop, task) = running(&path);
    let pods = local_client::pods(&path).await.unwrap();
    assert_eq!(pods.pods.len(), 1);
    assert_eq!(pods.pods[0].uid.as_str(), "u1");
    assert_eq!(pods.pods[0].pod.metadata.name.as_deref(), Some("web"));
    assert_eq!(pods.pods[0].progress.step, PodStep::Running);
    let problem = InputProblem { origin: "/etc/m/a.yaml".into(), reason: "line 3: what?".into() };
    assert_eq!(pods.problems, [problem]);
    assert_eq!(local_client::health(&path).await.unwrap().checks[0].name, "ping");
    stop.cancel();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn it_is_for_root_alone_whatever_the_umask() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("run/nodectl.sock");
    let _socket = OperatorSocket::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

/// The test runs a copy of itself (another user may not reach the build folder) as root and as `nobody`.
#[tokio::test]
async fn another_user_is_turned_away_even_where_the_mode_would_let_them() {
    const CHILD: &str = "NODECTL_TEST_SOCKET_CHILD";
    if let Some(path) = std::env::var_os(CHILD) {
        let asked = local_client::pods(Path::new(&path)).await;
        let is_root = nix::unistd::geteuid().is_root();
        assert_eq!(asked.is_ok(), is_root, "{asked:?}");
        assert!(is_root || matches!(asked, Err(ClientError::Broken { .. })), "{asked:?}");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("run/nodectl.sock");
    let (_stop, _task) = running(&path);
    // Someone opened it up.
    for folder in [temp.path(), path.parent().unwrap()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let exe = temp.path().join("exe");
    // By a process of its own: a child that another test forks while this one has the copy open to write
    // keeps it so for a moment, and "Text file busy" is what its start then says.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&exe).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    let test = "server::local::tests::another_user_is_turned_away_even_where_the_mode_would_let_them";
    for uid in [0, 65534] {
        let child = tokio::process::Command::new(&exe)
            .args(["--exact", test])
            .env(CHILD, &path)
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .output()
            .await
            .expect("this test needs root, to become another user");
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "uid {uid}: {said}");
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("nodectl.sock");
    // An agent that was killed leaves its socket behind.
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = OperatorSocket::bind(&path).unwrap();
    let error = OperatorSocket::bind(&path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    assert_eq!(CommandError::from(error).kind.code(), 3);
    // One that hangs, with a full backlog, is alive.
    let mut waiting = Vec::new();
    loop {
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        let full = connect(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()) == Err(nix::Error::EAGAIN);
        waiting.push(fd);
        if full {
            break;
        }
    }
    assert!(matches!(OperatorSocket::bind(&path), Err(SocketError::InUse { .. })));
    // Only its own socket is removed at the end.
    fs::remove_file(&path).unwrap();
    let second = OperatorSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(OperatorSocket::bind(&path), Err(SocketError::NotASocket { .. })));
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(OperatorSocket::bind(&link), Err(SocketError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let open = temp.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = OperatorSocket::bind(&open.join("s")).unwrap_err();
    assert!(error.to_string().ends_with("is writable for others (mode 777)"), "{error}");
    let long = temp.path().join("x".repeat(120));
    let error = OperatorSocket::bind(&long).unwrap_err().to_string();
    assert!(error.contains("bytes, and the kernel allows 107"), "{error}");
}

#[tokio::test]
async fn the_clients_errors_say_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("nodectl.sock");
    let error = CommandError::from(local_client::pods(&path).await.unwrap_err()).to_string();
    assert!(
        error.contains("cannot reach the agent on /") && error.contains("agent is not running"),
        "{error}"
    );

    let listener = StdUnixListener::bind(&path).unwrap();
    drop(listener);
    let error = CommandError::from(local_client::pods(&path).await.unwrap_err()).to_string();
    assert!(error.contains("was killed and has not been started again"), "{error}");
    fs::remove_file(&path).unwrap();

    // Something else that answers nonsense, and something that hangs up.
    let answers: [(&'static [u8], &str); 3] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not that of this version's agent"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nwhat", "404 Not Found: what"),
        (b"", "did not answer"),
    ];
    for (answer, expected) in answers {
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let error = local_client::pods(&path).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        server.await.unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_told_after_a_while() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("nodectl.sock");
    let _socket = OperatorSocket::bind(&path).unwrap();
    let error = local_client::pods(&path).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(CommandError::from(error).to_string().contains("journalctl"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("nodectl.sock");
    let (_stop, _task) = running(&path);
    for (request, expected) in [("GET /", "HTTP/1.1 404"), ("DELETE /v1/pods", "HTTP/1.1 405")] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
}
