//! `nodectl cri port-forward`: local ports that lead into a pod.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use futures_util::{FutureExt as _, StreamExt as _, future::select_all, stream::FuturesUnordered};
use tokio::net::{TcpListener, TcpStream};

use super::{
    ps::inventory,
    session::Session,
    streams::{Outcome, Outputs, StreamArgs, until_signal},
};
use crate::{
    cli::output::printable,
    cri::{
        Cri as _,
        streaming::{Dialer, port_forward::Forward},
    },
    error::CommandError,
};

/// Connections at a time; further ones wait to be taken.
const MAX_CONNECTIONS: usize = 512;

/// How long none is taken after that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `nodectl cri port-forward`.
#[derive(Debug, Clone, Args)]
pub(super) struct PortForwardArgs {
    /// The pod: its id or UID, the beginning of one, or NAMESPACE/NAME
    #[arg(value_name = "POD")]
    id: String,
    /// A port of the pod, and before it the local one if that is to be another; without a number before the
    /// colon, one that is free
    #[arg(value_name = "[LOCAL:]REMOTE", required = true)]
    ports: Vec<Ports>,
    /// Where to listen: addresses, or localhost for 127.0.0.1 and ::1
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    #[command(flatten)]
    stream: StreamArgs,
}

/// A local port and the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().map_err(|_error| format!("{text:?} is no port"));
        let (local, remote) = match text.split_once(':') {
            None => (number(text)?, number(text)?),
            Some(("", remote)) => (0, number(remote)?),
            Some((local, remote)) => (number(local)?, number(remote)?),
        };
        if remote == 0 { Err("the pod has no port 0".to_owned()) } else { Ok(Self { local, remote }) }
    }
}

/// A listener and the pod's port that it leads to.
struct Way {
    listener: TcpListener,
    local: u16,
    remote: u16,
}

/// The pod, and how it is reached.
struct Pod<'a> {
    id: &'a str,
    session: &'a Session,
    dialer: Dialer,
    args: &'a PortForwardArgs,
    outputs: &'a Outputs,
    /// It has been removed meanwhile.
    gone: Cell<bool>,
}

pub(super) async fn run(args: &PortForwardArgs, session: &Session) -> Result<ExitCode, CommandError> {
    let addresses = addresses(&args.address)?;
    let dialer = args.stream.dialer(session)?;
    let all = inventory(session).await?;
    let id = all.pod(&args.id)?.id.clone();
    let outputs = Outputs::start()?;
    let pod = Pod { id: &id, session, dialer, args, outputs: &outputs, gone: Cell::new(false) };
    let outcome = until_signal(async {
        // What would fail for each connection is told at once. Nothing in the pod is connected to for that.
        pod.dialer.reach(&pod.url(args.ports.first().map_or(0, |ports| ports.remote)).await?).await?;
        let ways = listen(&addresses, &args.ports, &outputs).await?;
        pod.serve(&ways).await
    });
    Ok(match outcome.await? {
        // This is how it ends.
        Outcome::Signal(_) => ExitCode::SUCCESS,
        outcome => outcome.code(),
    })
}

/// Each address, and whether all must be had: of localhost's one is enough.
fn addresses(given: &[String]) -> Result<Vec<Vec<IpAddr>>, CommandError> {
    let each = given.iter().map(|text| match text.as_str() {
        "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        text => text.parse().map(|address| vec![address]).map_err(|_error| {
            CommandError::usage(format!("--address {text:?} is neither an IP address nor localhost"))
        }),
    });
    each.collect()
}

/// Listens on each address for each port, and says where.
async fn listen(
    addresses: &[Vec<IpAddr>],
    ports: &[Ports],
    outputs: &Outputs,
) -> Result<Vec<Way>, CommandError> {
    let mut ways = Vec::new();
    for Ports { local, remote } in ports {
        for group in addresses {
            let (mut bound, mut failure) = (0, None);
            // A free port that was found on the one address is wanted on the other.
            let mut wanted = *local;
            for address in group {
                match TcpListener::bind((*address, wanted)).await.and_then(|l| Ok((l.local_addr()?, l))) {
                    Ok((at, listener)) => {
                        wanted = at.port();
                        bound += 1;
                        outputs.out.line(&format!("Forwarding from {at} -> {remote}")).await;
                        ways.push(Way { listener, local: at.port(), remote: *remote });
                    }
                    Err(error) => failure = Some((SocketAddr::new(*address, wanted), error)),
                }
            }
            if let Some((at, error)) = failure {
                let text = format!("cannot listen on {at}: {error}");
                if bound == 0 {
                    return Err(CommandError::failed(text));
                }
                // A machine without IPv6 is no news.
                if error.kind() != io::ErrorKind::AddrNotAvailable {
                    outputs.err.line(&format!("note: {text}")).await;
                }
            }
        }
    }
    Ok(ways)
}

impl Pod<'_> {
    /// A way to a port.
    async fn open(&self, port: u16) -> Result<Forward, CommandError> {
        Forward::open(&self.dialer, self.args.stream.transports(), port, async || self.url(port).await).await
    }

    /// Where the runtime streams from a port.
    async fn url(&self, port: u16) -> Result<String, CommandError> {
        let call = self.session.cri.port_forward(self.id, vec![port.into()]);
        match self.session.try_ask("PortForward", call).await {
            Ok(url) => Ok(url),
            Err(error) => {
                self.gone.set(error.is_not_found());
                Err(self.session.failed(&error).await)
            }
        }
    }

    /// Serves all that connect, side by side, until the pod is gone.
    async fn serve(&self, ways: &[Way]) -> Result<Outcome, CommandError> {
        let mut open = FuturesUnordered::new();
        let mut pause = false;
        loop {
            let accept = select_all(
                ways.iter()
                    .map(|way| way.listener.accept().map(move |accepted| (way, accepted)).boxed_local()),
            );
            tokio::select! {
                ((way, accepted), ..) = accept, if !pause && open.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => open.push(self.carry(way, stream)),
                    Err(error) => {
                        // Too many open files, mostly: those that end make room.
                        pause = true;
                        let line = format!("error: a connection to {}: {error}", way.local);
                        self.outputs.err.line(&line).await;
                    }
                },
                () = tokio::time::sleep(PAUSE), if pause => pause = false,
                Some(done) = open.next(), if !open.is_empty() => done?,
            }
        }
    }

    /// Carries a connection to its end, and tells what went wrong. An error is the end of all.
    async fn carry(&self, way: &Way, stream: TcpStream) -> Result<(), CommandError> {
        let carried = async {
            // Lines wait here for whoever reads them, and hold up no other connection.
            self.outputs.out.line(&format!("Handling connection for {}", way.local)).await;
            stream.set_nodelay(true).map_err(CommandError::failed)?;
            self.open(way.remote).await?.run(stream).await.map_err(CommandError::from)
        };
        if let Err(error) = carried.await {
            if self.gone.get() {
                return Err(error);
            }
            // Hints at each are too many.
            let error = error.to_string();
            let what = printable(error.lines().next().unwrap_or_default());
            let line = format!("error: forwarding {} -> {}: {what}", way.local, way.remote);
            self.outputs.err.line(&line).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_crictl_takes_them() {
        let ports = |text: &str| text.parse::<Ports>().map(|ports| (ports.local, ports.remote));
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports("8080:80"), Ok((8080, 80)));
        assert_eq!(ports(":80"), Ok((0, 80)));
        assert_eq!(ports("0:80"), Ok((0, 80)));
        for wrong in ["", "x", "80:", "0", "8080:0", "70000", "1:2:3", "-1"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_addresses() {
        let addresses = |text: &str| addresses(&[text.to_owned()]).map(|all| all.concat().len());
        assert_eq!(addresses("localhost").unwrap(), 2);
        assert_eq!(addresses("0.0.0.0").unwrap() + addresses("::").unwrap(), 2);
        assert_eq!(addresses("example.org").unwrap_err().kind.code(), 2);
    }
}
