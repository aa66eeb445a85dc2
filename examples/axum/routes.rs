//! The routes and their responses.

use crate::Outcome;
use crate::load::{self, Loaded, Model, State, Weights};
use crate::statistics::Statistics;
use axum::Json;
use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use ringload::{Loader, TensorInfo};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns the router of this server.
pub fn all(model: Arc<Model>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/ready", get(ready))
        .route("/generate", post(generate))
        .route("/reload", post(reload))
        .route("/tensors", get(list))
        // Names of tensors may contain slashes.
        .route("/tensors/{*name}", get(one))
        .with_state(Arc::clone(&model))
        .route("/metrics", get(move || async move { render(&model, &metrics) }))
}

/// The body of `/generate`.
#[derive(Debug, Deserialize)]
struct Prompt {
    tokens: Vec<u32>,
    count: usize,
}

/// The body of `/reload`.
#[derive(Debug, Deserialize)]
struct Checkpoint {
    location: String,
}

async fn generate(Shared(model): Shared<Arc<Model>>, Json(prompt): Json<Prompt>) -> Response {
    let loaded = match model.state() {
        State::Ready(loaded) => loaded,
        state => return not_ready(&state),
    };
    let continued = move || match &loaded.weights {
        Weights::Llama(llama) => llama.continued(&prompt.tokens, prompt.count),
        Weights::Plain(_) => Err("the checkpoint has no config.json of a Llama".into()),
    };
    match tokio::task::spawn_blocking(continued).await {
        Ok(Ok(tokens)) => Json(json!({ "tokens": tokens })).into_response(),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Loads another checkpoint. The present model answers until the other one is ready.
async fn reload(Shared(model): Shared<Arc<Model>>, Json(other): Json<Checkpoint>) -> Response {
    if !model.begin_reload() {
        let sentence = "a load is running, or no model is ready";
        return (StatusCode::CONFLICT, sentence).into_response();
    }
    match load::start(Loader::from_env(), other.location, model) {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.failure() {
        None => "ok\n".into_response(),
        Some(message) => (StatusCode::INTERNAL_SERVER_ERROR, message).into_response(),
    }
}

async fn ready(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.state() {
        State::Ready(loaded) => {
            let mut answer = ready_answer(&loaded);
            if let Some(reload) = model.reload() {
                answer["reload"] = description_of(&reload);
            }
            Json(answer).into_response()
        }
        state => not_ready(&state),
    }
}

fn ready_answer(loaded: &Loaded) -> Value {
    let bytes = loaded.checkpoint.data_bytes();
    json!({
        "state": "ready",
        "location": loaded.location,
        "tensors": loaded.checkpoint.tensors().len(),
        "bytes": bytes,
        "seconds": loaded.seconds,
        "gigabytes_per_second": bytes as f64 / 1e9 / loaded.seconds.max(1e-9),
    })
}

/// Returns 503 with the progress of the load, or with the error if it has failed.
fn not_ready(state: &State) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(description_of(state))).into_response()
}

fn description_of(state: &State) -> Value {
    match state {
        State::Loading(progress) => json!({
            "state": "loading",
            "done_bytes": progress.done_bytes(),
            "total_bytes": progress.total_bytes(),
        }),
        State::Failed(message) => json!({ "state": "failed", "error": message }),
        State::Opening | State::Ready(_) => json!({ "state": "opening" }),
    }
}

async fn list(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.state() {
        State::Ready(loaded) => {
            let mut tensors: Vec<_> = loaded.checkpoint.tensors().iter().collect();
            tensors.sort_by_key(|info| info.name());
            Json(tensors.into_iter().map(description).collect::<Vec<_>>()).into_response()
        }
        state => not_ready(&state),
    }
}

fn description(info: &TensorInfo) -> Value {
    json!({
        "name": info.name(),
        "dtype": info.dtype().to_string(),
        "shape": info.shape(),
        "bytes": info.len_bytes(),
    })
}

async fn one(Shared(model): Shared<Arc<Model>>, Path(name): Path<String>) -> Response {
    let loaded = match model.state() {
        State::Ready(loaded) => loaded,
        state => return not_ready(&state),
    };
    if loaded.checkpoint.tensor(&name).is_none() {
        return (StatusCode::NOT_FOUND, format!("the model has no tensor {name}")).into_response();
    }
    // A tensor may have gigabytes, so this must not block a thread that serves other requests.
    match tokio::task::spawn_blocking(move || statistics_of(&loaded, &name)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn statistics_of(loaded: &Loaded, name: &str) -> Outcome<Value> {
    let kept = match &loaded.weights {
        Weights::Plain(tensors) => tensors.get(name).cloned(),
        Weights::Llama(_) => None, // candle has it in another form
    };
    let tensor = match kept {
        Some(tensor) => tensor,
        None => loaded.loader.read_tensor(&loaded.checkpoint, name, None)?,
    };
    let mut answer = description(tensor.info());
    // The value is null for types without statistics and for tensors without elements.
    answer["statistics"] = json!(Statistics::of(&tensor));
    Ok(answer)
}

/// Renders all metrics, after updating those of the model's state.
fn render(model: &Model, metrics: &PrometheusHandle) -> String {
    let state = model.state();
    let (done_bytes, total_bytes) = match &state {
        State::Loading(progress) => (progress.done_bytes(), progress.total_bytes()),
        State::Ready(loaded) => {
            let bytes = loaded.checkpoint.data_bytes();
            (bytes, bytes)
        }
        State::Opening | State::Failed(_) => (0, 0),
    };
    metrics::gauge!("model_ready").set(f64::from(u8::from(matches!(state, State::Ready(_)))));
    metrics::gauge!("model_done_bytes").set(done_bytes as f64);
    metrics::gauge!("model_total_bytes").set(total_bytes as f64);
    metrics.run_upkeep(); // without this the histograms grow indefinitely
    metrics.render()
}
