//! Makes connections: resolves the name, connects to an address, goes through proxies, sets up TLS.
//!
//! If an address does not answer, the next one is tried.

use super::addresses::Names;
use super::secure::SecureConnector;
use super::socket::Socket;
use super::stream::Stream;
use super::tls;
use crate::options::RemoteOptions;
use crate::sync::Mutex;
use http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use std::future::Future;
use std::io;
#[cfg(feature = "s3")]
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// How long one address of several may take before the next one is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(2500);

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Connecting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Makes the connections of a client, with the proxies and root certificates that the environment
/// configures. Certificates are read when the first `https` connection is made.
pub(super) struct Connector {
    plain: ProxyConnector,
    options: RemoteOptions,
    secure: Mutex<Secure>,
}

#[derive(Default)]
struct Secure {
    /// The file of certificates that the AWS profile names.
    bundle: Option<PathBuf>,
    /// `None` until the first `https` connection.
    made: Option<Arc<SecureConnector<ProxyConnector>>>,
}

impl Connector {
    /// A connector with `options`.
    pub fn new(options: RemoteOptions) -> Self {
        let proxies = Arc::new(Proxies::of(&options));
        let plain = ProxyConnector { tcp: TcpConnector::default(), proxies };
        Self { plain, options, secure: Mutex::default() }
    }

    /// The proxy for an `http` request to `to`, which is then sent in absolute form.
    pub fn plain_proxy(&self, to: &Uri) -> Option<Intercept> {
        self.plain.proxy(to).filter(|_| to.scheme_str() == Some("http"))
    }

    /// Connects to the server of `to`, or to its proxy.
    ///
    /// # Errors
    /// [`Unresolved`], [`rustls::Error`], an I/O error, or the [`Error`](crate::Error) of a file of
    /// certificates.
    pub async fn connect(&self, to: &Uri) -> std::result::Result<Stream, BoxError> {
        if to.scheme_str() != Some("https") {
            let stream = self.plain.clone().call(to.clone()).await?;
            return Ok(Stream::Http(stream));
        }
        let secure = self.secure()?;
        secure.connect(to).await
    }

    /// The connector for `https`, made at the first call.
    fn secure(&self) -> crate::Result<Arc<SecureConnector<ProxyConnector>>> {
        let mut secure = self.secure.lock();
        if let Some(made) = &secure.made {
            return Ok(Arc::clone(made));
        }
        let configuration = tls::configuration(&self.options, secure.bundle.as_deref())?;
        let mut below_rustls = self.plain.clone();
        below_rustls.tcp.below_rustls = true;
        let made = SecureConnector::new(configuration, self.plain.clone(), below_rustls);
        let made = Arc::new(made);
        secure.made = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Trusts the certificates in the file `bundle`, too, which the AWS profile names.
    #[cfg(feature = "s3")]
    pub fn trust_also(&self, bundle: &Path) {
        let mut secure = self.secure.lock();
        if secure.bundle.as_deref() != Some(bundle) {
            *secure = Secure { bundle: Some(bundle.to_owned()), made: None };
        }
    }
}

/// The proxies that the environment configures.
struct Proxies {
    matcher: Matcher,
    /// The hosts of `NO_PROXY` that have a port, which the matcher does not know.
    direct: Vec<(String, u16)>,
}

impl Proxies {
    fn of(options: &RemoteOptions) -> Self {
        let direct = either(options, "NO_PROXY").unwrap_or_default();
        let direct = direct.split(',').filter_map(|entry| {
            let (host, port) = entry.trim().rsplit_once(':')?;
            let host = host.trim_matches(['[', ']']).trim_start_matches('.');
            Some((host.to_ascii_lowercase(), port.parse().ok()?))
        });
        Self { direct: direct.collect(), matcher: matcher(options) }
    }

    /// Whether `NO_PROXY` names the port of `to`, and its host or a domain that the host is in.
    fn names_port_of(&self, to: &Uri) -> bool {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = port_of(to);
        self.direct.iter().any(|(name, direct)| {
            let before = host.strip_suffix(name.as_str());
            *direct == port
                && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    }
}

/// The variable `name`, in capitals or else in small letters.
fn either(options: &RemoteOptions, name: &str) -> Option<String> {
    options.env(name).or_else(|| options.env(&name.to_ascii_lowercase()))
}

/// The port of a URL, which the scheme tells where the URL does not.
fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// The proxies that the environment configures, with the variables and rules of curl.
fn matcher(options: &RemoteOptions) -> Matcher {
    let either = |name| either(options, name);
    let mut matcher = Matcher::builder();
    if let Some(all) = either("ALL_PROXY") {
        matcher = matcher.all(all);
    }
    // A CGI server sets upper-case HTTP_PROXY from a request's `Proxy:` header.
    let is_cgi = options.env("REQUEST_METHOD").is_some();
    let http = if is_cgi { options.env("http_proxy") } else { either("HTTP_PROXY") };
    if let Some(http) = http {
        matcher = matcher.http(http);
    }
    if let Some(https) = either("HTTPS_PROXY") {
        matcher = matcher.https(https);
    }
    let direct = either("NO_PROXY").unwrap_or_default();
    // The matcher does not know the asterisk, which stands for all hosts.
    if direct.split(',').any(|host| host.trim() == "*") {
        return Matcher::builder().build();
    }
    matcher.no(direct).build()
}

/// Connects directly or, where a proxy is configured, through the proxy.
#[derive(Clone)]
struct ProxyConnector {
    tcp: TcpConnector,
    proxies: Arc<Proxies>,
}

impl ProxyConnector {
    /// The proxy for requests to `to`. Metadata servers are always reached directly, as each machine
    /// has its own.
    fn proxy(&self, to: &Uri) -> Option<Intercept> {
        let host = to.host().unwrap_or_default();
        let is_metadata = host.starts_with("169.254.")
            || host.eq_ignore_ascii_case("[fd00:ec2::254]")
            || host.eq_ignore_ascii_case("[fd00:ec2::23]")
            || host.eq_ignore_ascii_case("metadata.google.internal");
        let is_direct = is_metadata || self.proxies.names_port_of(to);
        if is_direct { None } else { self.proxies.matcher.intercept(to) }
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = Socket;
    type Error = io::Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let Some(proxy) = self.proxy(&to) else {
            return tcp.call(to);
        };
        if to.scheme_str() != Some("https") {
            // `http` requests are sent to the proxy itself, in absolute form.
            let connecting = tcp.call(proxy.uri().clone());
            return Box::pin(async move {
                connecting.await.map_err(|cause| ProxyFailure::error(&proxy, cause))
            });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(
            async move { connecting.await.map_err(|cause| ProxyFailure::error(&proxy, cause)) },
        )
    }
}

/// A proxy that could not be used, with the address of the proxy.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy}: {cause}")]
pub(super) struct ProxyFailure {
    /// Host and port, without user and password.
    pub proxy: String,
    pub cause: BoxError,
}

impl ProxyFailure {
    fn error(proxy: &Intercept, cause: impl Into<BoxError>) -> io::Error {
        let uri = proxy.uri();
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        io::Error::other(Self { proxy: format!("{host}{port}"), cause: cause.into() })
    }
}

/// Connects over TCP, using the addresses of a name in turn.
#[derive(Clone, Default)]
struct TcpConnector {
    /// Whether rustls serves the connections.
    below_rustls: bool,
    names: Arc<Names>,
}

impl Service<Uri> for TcpConnector {
    type Response = Socket;
    type Error = io::Error;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let tcp = self.clone();
        Box::pin(async move {
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let stream = tcp.connect(&host, port_of(&to)).await?;
            stream.set_nodelay(true)?;
            Ok(if tcp.below_rustls { Socket::below_rustls(stream) } else { Socket::plain(stream) })
        })
    }
}

impl TcpConnector {
    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let name = self.names.of(host, port);
        let addresses = name.addresses().await?;
        let mut last = None;
        for (tried, &address) in addresses.iter().enumerate() {
            // Only the caller limits the time for the last address.
            let connecting = TcpStream::connect(address);
            let outcome = match tried + 1 < addresses.len() {
                true => timeout(ADDRESS_TIMEOUT, connecting)
                    .await
                    .unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late))),
                false => connecting.await,
            };
            name.record(address, outcome.is_ok());
            match outcome {
                Ok(stream) => return Ok(stream),
                Err(refusal) => last = Some(refusal),
            }
        }
        name.forget();
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    }
}
