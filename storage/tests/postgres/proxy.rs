//! A connection between the store and its server that can be cut at the worst moment.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does from now on.
#[derive(Default)]
struct Plan {
    /// The answer to what holds this does not arrive: both sides are cut instead.
    needle: Mutex<Option<Vec<u8>>>,
    /// And nobody is let in after it.
    stay_down: AtomicBool,
    /// Connections are dropped, and new ones at once.
    down: watch::Sender<bool>,
    /// Nothing passes, and nothing is closed.
    stalled: watch::Sender<bool>,
    cuts: AtomicU32,
}

impl Plan {
    /// Whether `sent` is what is waited for; found only once.
    fn finds(&self, sent: &[u8]) -> bool {
        let mut needle = self.needle.lock().unwrap();
        let found =
            needle.as_ref().is_some_and(|needle| sent.windows(needle.len()).any(|part| part == needle));
        if found {
            *needle = None;
        }
        found
    }
}

pub(crate) struct Proxy {
    url: String,
    plan: Arc<Plan>,
    running: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Proxy {
    /// In front of the server of `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{database}", listener.local_addr().unwrap());
        let plan = Arc::new(Plan::default());
        #[expect(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        let running = tokio::spawn(serve(listener, server, Arc::clone(&plan)));
        Self { url, plan, running }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts when the answer to the next statement that holds `needle` comes, and, if `stay_down`, lets nobody in after it.
    pub(crate) fn cut_answer_to(&self, needle: &str, stay_down: bool) {
        self.plan.stay_down.store(stay_down, Ordering::SeqCst);
        *self.plan.needle.lock().unwrap() = Some(needle.as_bytes().to_vec());
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.plan.down.send_replace(down);
    }

    /// Nothing passes any more, as through a network that swallows everything.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.plan.stalled.send_replace(stalled);
    }

    /// How often it cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.plan.cuts.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, plan: Arc<Plan>) {
    while let Ok((client, _)) = listener.accept().await {
        if *plan.down.borrow() {
            continue;
        }
        #[expect(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        tokio::spawn(carry(client, server, Arc::clone(&plan)));
    }
}

async fn went_down(down: &mut watch::Receiver<bool>) {
    let _ = down.wait_for(|down| *down).await;
}

async fn carry(mut client: TcpStream, server: SocketAddr, plan: Arc<Plan>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut doomed = false;
    let (mut down, mut stalled) = (plan.down.subscribe(), plan.stalled.subscribe());
    loop {
        let passes = !*stalled.borrow_and_update();
        tokio::select! {
            () = went_down(&mut down) => return,
            _ = stalled.changed() => {}
            read = client.read(&mut asked), if passes => match read {
                Ok(count) if count > 0 => {
                    doomed |= plan.finds(&asked[..count]);
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = server.read(&mut answered), if passes => match read {
                Ok(count) if count > 0 => {
                    if doomed {
                        plan.down.send_replace(plan.stay_down.load(Ordering::SeqCst));
                        plan.cuts.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                    if client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
