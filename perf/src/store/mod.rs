//! An emulated object store: files below a directory, served as slowly as the settings say.
//!
//! ```text
//! accept (each address) --> connection: a task on the only thread
//!                             head        parsed by httparse
//!                             answer      a range of a file, a list or an error, as S3 gives them
//!                             wait        the time to the first byte
//!                             body        pieces, each when its time has come (pace)
//! ```
//!
//! One thread runs everything, and waits in epoll or for a timer: it does not spin. Without TLS the
//! bodies are sent with sendfile(2), so that a store of 1 GB/s takes a small part of a core and leaves
//! the rest to the client. Random choices come from a fixed seed.
//!
//! The store differs from a real one in two ways: the kernel accepts connections at once (`--connect`
//! delays what is answered on them, the handshake of TLS at first), and a rate is kept in pieces of
//! some milliseconds, not in packets.

mod answer;
mod connection;
mod counts;
mod pace;
mod process;
mod request;
mod settings;
#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use process::Emulated;
pub use settings::Settings;

use anyhow::{Context, Result};
use connection::{Connection, Wire};
use counts::Counters;
use pace::Pace;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// What the connections share.
struct Store {
    root: PathBuf,
    settings: Settings,
    /// The rate of all connections together.
    total: Option<Pace>,
    /// The rate of requests.
    requests: Option<Pace>,
    counters: Counters,
    random: RefCell<fastrand::Rng>,
}

/// The arguments of the process that runs the store.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The directory that is served
    root: PathBuf,
    /// The port of HTTP
    #[arg(long)]
    http: u16,
    /// The port of HTTPS
    #[arg(long)]
    https: u16,
    /// The key and the certificate of HTTPS, in PEM files
    #[arg(long, num_args = 2, value_names = ["KEY", "CERTIFICATE"])]
    tls: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the store until the process is killed.
///
/// # Errors
/// When it cannot listen, or the certificate cannot be read.
pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = Rc::new(Store::new(args.root, args.settings));
    LocalSet::new().block_on(&runtime, async move {
        let tls = match args.tls.as_slice() {
            [key, certificate] => Some(acceptor(key, certificate)?),
            _ => None,
        };
        let mut listening = Vec::new();
        for address in store.settings.addresses.clone() {
            let plain = TcpListener::bind((address, args.http)).await;
            let plain = plain.with_context(|| format!("cannot listen on {address}"))?;
            listening.push(tokio::task::spawn_local(accept(Rc::clone(&store), plain, None)));
            if let Some(tls) = &tls {
                let secure = TcpListener::bind((address, args.https)).await?;
                let accepting = accept(Rc::clone(&store), secure, Some(tls.clone()));
                listening.push(tokio::task::spawn_local(accepting));
            }
        }
        for task in listening {
            task.await?;
        }
        Ok(())
    })
}

impl Store {
    fn new(root: PathBuf, settings: Settings) -> Self {
        Self {
            root,
            total: settings.total_rate().map(|rate| Pace::new(rate, settings::TOTAL_BURST)),
            requests: settings.requests.map(|rate| Pace::new(rate, settings::REQUEST_BURST)),
            settings,
            counters: Counters::default(),
            random: RefCell::new(fastrand::Rng::with_seed(16)),
        }
    }

    /// Whether something that happens to this share of all answers happens now.
    fn happens(&self, share: f64) -> bool {
        share > 0.0 && self.random.borrow_mut().f64() < share
    }
}

async fn accept(store: Rc<Store>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        // A connection that is gone already, or too many files: the next one may be accepted.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (store, tls) = (Rc::clone(&store), tls.clone());
        tokio::task::spawn_local(async move {
            sleep(Duration::from_secs_f64(store.settings.connect / 1e3)).await;
            let wire = match tls {
                None => Wire::Plain(stream),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Wire::Tls(Box::new(stream)),
                    Err(_) => return,
                },
            };
            // Clients end connections whenever they like.
            let _ = Connection::new(store, wire).serve().await;
        });
    }
}

fn acceptor(key: &PathBuf, certificate: &PathBuf) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
