//! A server that loads its model while it runs already: progress, metrics, a graceful stop.
//!
//! ```text
//! cargo run --release -p ringload-examples --bin axum -- s3://bucket/llama-8b/ --listen 0.0.0.0:8000
//! ```
//!
//! | path | answers |
//! | --- | --- |
//! | `/healthz` | 200 as long as the process is of use; 500 once the load has failed: restart it |
//! | `/ready` | 503 and how far the load is, in JSON; 200 when the model is there |
//! | `/metrics` | the metrics of `ringload`, and those of this server, for Prometheus |
//! | `/tensors` | name, type, shape and length of every tensor |
//! | `/tensors/{name}` | the same of one, with mean, least and greatest element |
//!
//! ```text
//! main: recorder -> listen -> serve until SIGINT or SIGTERM -> exit status
//!                     |
//!                     +-- a thread: Loader::stream -> tensors    (load.rs)
//!                                       |
//!                             model: Opening -> Loading -> Ready | Failed    (what all handlers read)
//! ```
//!
//! It listens at once, so that whoever waits for it sees how far it is. The load has a thread of its
//! own, since it blocks; handlers only look at what it left. Exit status: 0 stopped, 1 the model could
//! not be loaded (which `/ready` told) or the address not be listened at, 2 wrong usage.

#[path = "axum/load.rs"]
mod load;
#[path = "axum/routes.rs"]
mod routes;
#[path = "axum/statistics.rs"]
mod statistics;

use clap::Parser;
use load::Model;
use metrics_exporter_prometheus::PrometheusBuilder;
use ringload::Loader;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves a checkpoint's tensors over HTTP, and tells how far their load is.
#[derive(Debug, Parser)]
struct Args {
    /// A file, directory, index, pattern, or s3://, gs://, az://, hf://, https:// location.
    location: String,
    /// Where to listen; port 0 lets the system pick one. The address is printed.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before the load: what it counts goes to the recorder that is there then.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&args.listen).await;
    let listener =
        listener.map_err(|error| format!("cannot listen at {}: {error}", args.listen))?;
    // The server does not depend on somebody reading this.
    let _ = writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?);

    let model = Arc::<Model>::default();
    load::start(Loader::new(), args.location, Arc::clone(&model))?;
    axum::serve(listener, routes::all(Arc::clone(&model), metrics))
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
        .await?;
    match model.failure() {
        // A load that still runs only reads: it ends with the process.
        None => Ok(()),
        Some(sentence) => Err(sentence.into()),
    }
}
