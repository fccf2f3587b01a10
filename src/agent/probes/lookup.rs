//! Connections to hosts that probes and hooks name, looked up by the system's resolver on threads of their own.
//!
//! The resolver blocks for as long as it likes, half a minute where no server answers, and cannot be called
//! back. tokio would have it wait on the threads that all file work of the agent shares: a few probes of a name
//! would stop every pod once the node's name service is away. So there are only so many lookups at once, each on
//! a thread that counts until the lookup really ends, and one of each name, whose answer all take that wait for
//! it: a name that nobody knows costs one thread. Waiting takes from the time of whoever asks.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
};

/// Lookups, and so threads, at once.
const AT_ONCE: usize = 8;
/// So many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 16;

/// Connects to a name or an address. Whoever calls bounds the time.
///
/// # Errors
/// The name is not known, or none of its addresses takes the connection.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    static LOOKUPS: OnceLock<Lookups> = OnceLock::new();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return TcpStream::connect((ip, port)).await;
    }
    let found = LOOKUPS.get_or_init(|| Lookups::new(ask_system)).find(host).await;
    let ips = found.map_err(|why| io::Error::other(format!("cannot look up {host:?}: {why}")))?;
    let addresses: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    TcpStream::connect(&addresses[..]).await
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.take(MAX_ADDRESSES).map(|address| address.ip()).collect())
}

type Found = Result<Arc<[IpAddr]>, Arc<str>>;
type Answer = Arc<watch::Sender<Option<Found>>>;

#[derive(Clone)]
struct Lookups {
    resolve: fn(&str) -> io::Result<Vec<IpAddr>>,
    places: Arc<Semaphore>,
    /// Those that run or wait for a place, by name.
    under_way: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Lookups {
    fn new(resolve: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self { resolve, places: Arc::new(Semaphore::new(AT_ONCE)), under_way: Arc::default() }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, name: &str) -> Found {
        let mut told = {
            let mut under_way = self.under_way();
            if let Some(answer) = under_way.get(name) {
                answer.subscribe()
            } else {
                let (answer, told) = watch::channel(None);
                let answer = Arc::new(answer);
                under_way.insert(name.to_owned(), Arc::clone(&answer));
                tokio::spawn(self.clone().look_up(name.to_owned(), answer));
                told
            }
        };
        match told.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(found)) => found,
            _ => Err("the lookup was given up".into()),
        }
    }

    /// Waits for a place, then asks on a thread. Gives up while it waits when nobody waits for the answer.
    async fn look_up(self, name: String, answer: Answer) {
        let mut place = pin!(Arc::clone(&self.places).acquire_owned());
        let place = loop {
            tokio::select! {
                place = &mut place => break place,
                () = answer.closed() => {
                    let mut under_way = self.under_way();
                    if answer.receiver_count() == 0 {
                        under_way.remove(&name);
                        return;
                    }
                }
            }
        };
        let asking = {
            let (this, name, answer) = (self.clone(), name.clone(), Arc::clone(&answer));
            move || {
                let found = match (this.resolve)(&name) {
                    Ok(ips) if ips.is_empty() => Err("it has no address".into()),
                    Ok(ips) => Ok(ips.into()),
                    Err(error) => Err(error.to_string().into()),
                };
                this.end(&name, &answer, found);
                drop(place);
            }
        };
        if let Err(error) = thread::Builder::new().name("lookup".to_owned()).spawn(asking) {
            self.end(&name, &answer, Err(format!("no thread for it: {error}").into()));
        }
    }

    fn end(&self, name: &str, answer: &Answer, found: Found) {
        self.under_way().remove(name);
        answer.send_replace(Some(found));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Condvar,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    /// A name service that does not answer before the gate is open.
    fn blocked(_name: &str) -> io::Result<Vec<IpAddr>> {
        ASKED.fetch_add(1, Ordering::SeqCst);
        let shut = GATE.0.lock().unwrap();
        drop(GATE.1.wait_while(shut, |open| !*open).unwrap());
        Ok(vec![[127, 0, 0, 1].into()])
    }

    #[test]
    fn lookups_that_hang_are_few_and_hold_up_no_file_work() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let lookups = Lookups::new(blocked);
            let mut asking = JoinSet::new();
            // Each name is asked for by three, and all run out of time.
            for name in (0..3 * AT_ONCE).flat_map(|n| [n; 3]) {
                let lookups = lookups.clone();
                asking.spawn(async move {
                    timeout(Duration::from_millis(300), lookups.find(&format!("name{name}"))).await.is_err()
                });
            }
            assert!(asking.join_all().await.into_iter().all(|late| late));
            while ASKED.load(Ordering::SeqCst) < AT_ONCE {
                tokio::task::yield_now().await;
            }
            assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
            // Those that wait go with whoever asked; those that run are still there, and so are their places.
            while lookups.under_way().len() > AT_ONCE {
                tokio::task::yield_now().await;
            }
            assert_eq!(lookups.places.available_permits(), 0);
            assert_eq!(ASKED.load(Ordering::SeqCst), AT_ONCE);
            *GATE.0.lock().unwrap() = true;
            GATE.1.notify_all();
            let found = timeout(Duration::from_secs(60), lookups.find("other")).await.unwrap().unwrap();
            assert_eq!(&*found, [IpAddr::from([127, 0, 0, 1])]);
            while lookups.places.available_permits() < AT_ONCE {
                tokio::task::yield_now().await;
            }
            assert!(lookups.under_way().is_empty());
        });
    }

    #[tokio::test]
    async fn failures_are_told_with_the_name() {
        let lookups = Lookups::new(|_| Ok(Vec::new()));
        assert_eq!(lookups.find("x").await, Err("it has no address".into()));
        let error = connect("no such name", 1).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot look up \"no such name\": "), "{error}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        connect("localhost", port).await.unwrap();
        connect("127.0.0.1", port).await.unwrap();
    }
}
