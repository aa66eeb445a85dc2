//! The addresses of names.
//!
//! A large store has many addresses, of which each query of its name returns some (S3: eight). While
//! connections are opened, the name is therefore resolved again every [`RESOLVE_INTERVAL`], in the
//! background, and the addresses are merged. They are used in turn, so that the connections of a load
//! are spread over all machines behind the name. An address that failed comes last for [`FAILED_LAST`].
//! One that was neither resolved nor connected to for [`FRESH`] is dropped.

use crate::sync::Mutex;
use crate::sys::{on_own_thread, spawn};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an address is used after it was resolved or connected to.
const FRESH: Duration = Duration::from_secs(30);
/// How often a name is resolved while connections are opened.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long an address that failed comes last.
const FAILED_LAST: Duration = Duration::from_secs(30);
/// Addresses that were never used have random turns below this.
const FIRST_TURN: u64 = 1 << 32;

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The names that connections were opened to.
pub(super) struct Names {
    resolve: Arc<Resolve>,
    known: Mutex<HashMap<(String, u16), Arc<Name>>>,
}

/// A host and port.
pub(super) struct Name {
    host: String,
    port: u16,
    resolve: Arc<Resolve>,
    state: Mutex<NameState>,
    /// Held while the name is resolved and no address is known.
    resolving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct NameState {
    addresses: Vec<Address>,
    turn: u64,
    resolved: Option<Instant>,
}

struct Address {
    address: SocketAddr,
    /// When it was last resolved or connected to.
    seen: Instant,
    failed: Option<Instant>,
    /// When it was last used.
    turn: u64,
}

impl Default for Names {
    /// Names that the system resolves.
    fn default() -> Self {
        Self::resolved_by(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl Names {
    fn resolved_by(
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { resolve: Arc::new(resolve), known: Mutex::default() }
    }

    /// The name of a host and port.
    pub fn of(&self, host: &str, port: u16) -> Arc<Name> {
        let mut known = self.known.lock();
        let name = known.entry((host.to_owned(), port)).or_insert_with(|| {
            Arc::new(Name {
                host: host.to_owned(),
                port,
                resolve: Arc::clone(&self.resolve),
                state: Mutex::default(),
                resolving: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(name)
    }
}

impl Name {
    /// The addresses in the order in which they are to be tried, each time beginning with another one.
    ///
    /// An address needs no thread to resolve it, during which a paused clock of a test would go on.
    ///
    /// # Errors
    /// [`Unresolved`], or that of starting a thread.
    pub async fn addresses(self: &Arc<Self>) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _resolving = self.resolving.lock().await;
        if let Some(known) = self.known() {
            return Ok(known); // another connection has resolved it meanwhile
        }
        let name = Arc::clone(self);
        let resolved = on_own_thread(move || (name.resolve)(&name.host, name.port)).await;
        let resolved = resolved
            .map_err(io::Error::other)?
            .map_err(|error| io::Error::other(Unresolved(error.to_string())))?;
        self.merge(&resolved, Instant::now());
        self.known().ok_or_else(|| io::Error::other(Unresolved("it has no address".to_owned())))
    }

    /// Records that `address` was connected to, or failed.
    pub fn record(&self, address: SocketAddr, connected: bool) {
        let mut state = self.state.lock();
        let Some(known) = state.addresses.iter_mut().find(|it| it.address == address) else {
            return;
        };
        if connected {
            known.seen = Instant::now();
        }
        known.failed = (!connected).then(Instant::now);
    }

    /// Forgets the addresses, all of which failed.
    pub fn forget(&self) {
        *self.state.lock() = NameState::default();
    }

    /// The addresses that are fresh, if there are any. Resolves the name again if it is time.
    fn known(self: &Arc<Self>) -> Option<Vec<SocketAddr>> {
        let mut state = self.state.lock();
        state.addresses.retain(|address| address.seen.elapsed() <= FRESH);
        let failed = |it: &Address| it.failed.is_some_and(|at| at.elapsed() < FAILED_LAST);
        state.addresses.sort_by_key(|it| (failed(it), it.turn));
        state.turn += 1;
        let turn = FIRST_TURN + state.turn;
        state.addresses.first_mut()?.turn = turn;
        if state.resolved.is_none_or(|at| at.elapsed() >= RESOLVE_INTERVAL) {
            let now = Instant::now();
            state.resolved = Some(now);
            let name = Arc::clone(self);
            // Without a thread, or without an answer, the known addresses go on to be used.
            drop(spawn("ringload-resolve", move || {
                let resolved = (name.resolve)(&name.host, name.port);
                name.merge(&resolved.unwrap_or_default(), now);
            }));
        }
        Some(state.addresses.iter().map(|it| it.address).collect())
    }

    /// Adds the addresses that were `resolved` at this time.
    fn merge(&self, resolved: &[SocketAddr], seen: Instant) {
        let mut state = self.state.lock();
        state.resolved = Some(seen);
        for &address in resolved {
            match state.addresses.iter_mut().find(|it| it.address == address) {
                Some(known) => known.seen = seen,
                None => {
                    let turn = fastrand::u64(..FIRST_TURN);
                    state.addresses.push(Address { address, seen, failed: None, turn });
                }
            }
        }
    }
}

/// A name that does not resolve, with the message of the resolver.
#[derive(Debug, thiserror::Error)]
#[error("the name does not resolve: {0}")]
pub(super) struct Unresolved(String);

impl Unresolved {
    /// Whether the resolver failed temporarily (EAI_AGAIN), so that a retry may succeed.
    pub fn is_temporary(&self) -> bool {
        self.0.contains("Temporary failure")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::advance;

    fn address(number: usize) -> SocketAddr {
        format!("127.0.0.{}:80", number + 1).parse().unwrap()
    }

    /// A resolver that returns two of eight addresses at a time, and the number of its calls.
    fn two_of_eight() -> (Names, Arc<AtomicUsize>) {
        let calls = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&calls);
        let names = Names::resolved_by(move |_, _| {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            Ok((0..2).map(|it| address((2 * call + it) % 8)).collect())
        });
        (names, calls)
    }

    /// Waits until as many addresses are known, which another thread resolves.
    fn wait_for(name: &Name, count: usize) {
        let began = std::time::Instant::now();
        while name.state.lock().addresses.len() < count {
            assert!(began.elapsed() < Duration::from_secs(60), "they were not resolved");
            std::thread::yield_now();
        }
    }

    /// All connections of a load went to the few addresses that the first query returned.
    #[tokio::test(start_paused = true)]
    async fn connections_are_spread_over_all_addresses_that_queries_return() {
        let (names, calls) = two_of_eight();
        let name = names.of("h", 80);
        for known in [2, 4, 6, 8] {
            let mut used = HashSet::new();
            for _ in 0..known {
                used.extend(name.addresses().await.unwrap().first().copied());
            }
            assert_eq!(used.len(), known, "each is used in turn");
            assert_eq!(calls.load(Ordering::SeqCst), known / 2, "not resolved at each connection");
            advance(RESOLVE_INTERVAL).await;
            name.addresses().await.unwrap();
            wait_for(&name, (known + 2).min(8));
        }
        // An address that no query returns any more and nobody connects to is dropped.
        name.record(address(0), true);
        advance(FRESH / 2).await;
        name.record(address(0), true);
        advance(FRESH / 2 + Duration::from_secs(1)).await;
        assert_eq!(name.addresses().await.unwrap(), [address(0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_comes_last_for_a_while() {
        let names = Names::resolved_by(|_, _| Ok((0..4).map(address).collect()));
        let name = names.of("h", 80);
        let first = name.addresses().await.unwrap()[0];
        name.record(first, false);
        for _ in 0..8 {
            assert_eq!(name.addresses().await.unwrap()[3], first);
        }
        name.record(first, true);
        let mut used = HashSet::new();
        for _ in 0..4 {
            used.extend(name.addresses().await.unwrap().first().copied());
        }
        assert!(used.contains(&first), "it answered again");
        name.record(first, false);
        advance(FAILED_LAST - Duration::from_secs(1)).await;
        (0..4).for_each(|number| name.merge(&[address(number)], Instant::now()));
        assert_eq!(name.addresses().await.unwrap()[3], first);
        advance(Duration::from_secs(1)).await;
        assert_ne!(name.addresses().await.unwrap()[3], first);
    }

    /// Each of the connections that were opened at once resolved the name for itself.
    #[tokio::test]
    async fn a_name_is_resolved_once_for_all_connections() {
        let (names, calls) = two_of_eight();
        let name = names.of("h", 80);
        let opening: Vec<_> = (0..100)
            .map(|_| {
                let name = Arc::clone(&name);
                tokio::spawn(async move { name.addresses().await.unwrap().len() })
            })
            .collect();
        for opening in opening {
            assert_eq!(opening.await.unwrap(), 2);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
