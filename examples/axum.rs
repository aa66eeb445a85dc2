//! A server that loads its model in the background, with progress, metrics, reloads and a graceful stop.
//! A Llama (a local directory with `config.json`) also answers requests, with candle.
//!
//! ```text
//! cargo run --release -p ringload-examples --bin axum -- s3://bucket/llama-8b/ --listen 0.0.0.0:8000
//! ```
//!
//! | path | response |
//! | --- | --- |
//! | `/healthz` | 200; 500 after the load has failed, when the process should be restarted |
//! | `/ready` | 503 and the progress of the load in JSON; 200 after the model is loaded |
//! | `POST /generate` | `{"tokens": [1, 20], "count": 8}`: the most probable next tokens |
//! | `POST /reload` | `{"location": ...}`: loads another checkpoint; the present one answers until then |
//! | `/metrics` | the metrics of `ringload` and of this server, for Prometheus |
//! | `/tensors` | name, type, shape and length of every tensor |
//! | `/tensors/{name}` | the same for one tensor, with its mean, minimum and maximum |
//!
//! ```text
//! main: recorder -> listen -> serve until SIGINT or SIGTERM -> exit status
//!                     |
//!                     +-- a thread: ringload_candle -> Llama, or Loader::stream -> tensors (load.rs)
//!                                       |
//!                             model: Opening -> Loading -> Ready | Failed   (read by all handlers)
//! ```
//!
//! The server listens before it loads, so clients can follow the progress. The load blocks, so it
//! has its own thread; handlers only read its state. Exit status: 0 after a signal, 1 if the model
//! could not be loaded (which `/ready` reports) or the server could not listen, 2 for wrong usage.

#[path = "axum/generate.rs"]
mod generate;
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

/// A result whose error is only shown.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Serves a checkpoint's tensors over HTTP, and reports the progress of their load.
#[derive(Debug, Parser)]
struct Args {
    /// A file, directory, index, pattern, or s3://, gs://, az://, hf://, https:// location.
    location: String,
    /// The address to listen on, which is printed; with port 0 the system chooses a port.
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
    // The load counts with the recorder that is installed when it starts.
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&args.listen).await;
    let listener =
        listener.map_err(|error| format!("cannot listen at {}: {error}", args.listen))?;
    // The server also runs if standard output is closed.
    let _ = writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?);

    let model = Arc::<Model>::default();
    load::start(Loader::from_env(), args.location, Arc::clone(&model))?;
    axum::serve(listener, routes::all(Arc::clone(&model), metrics))
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
        .await?;
    match model.failure() {
        // A load that has not finished only reads, so it can end with the process.
        None => Ok(()),
        Some(sentence) => Err(sentence.into()),
    }
}
