//! The routes and their responses.

use crate::load::{Model, State, Tensors};
use crate::statistics::Statistics;
use axum::Json;
use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use ringload::Tensor;
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns the router of this server.
pub fn all(model: Arc<Model>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/ready", get(ready))
        .route("/tensors", get(list))
        // Names of tensors may contain slashes.
        .route("/tensors/{*name}", get(one))
        .with_state(Arc::clone(&model))
        .route("/metrics", get(move || async move { render(&model, &metrics) }))
}

async fn health(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.failure() {
        None => "ok\n".into_response(),
        Some(message) => (StatusCode::INTERNAL_SERVER_ERROR, message).into_response(),
    }
}

async fn ready(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.state() {
        State::Ready(tensors) => Json(ready_answer(&tensors)).into_response(),
        state => not_ready(&state),
    }
}

fn ready_answer(tensors: &Tensors) -> Value {
    let summary = &tensors.summary;
    json!({
        "state": "ready",
        "tensors": summary.tensors,
        "bytes": summary.bytes,
        "seconds": summary.seconds,
        "gigabytes_per_second": summary.gigabytes_per_second(),
    })
}

/// Returns 503 with the progress of the load, or with the error if it has failed.
fn not_ready(state: &State) -> Response {
    let answer = match state {
        State::Loading(progress) => json!({
            "state": "loading",
            "done_bytes": progress.done_bytes(),
            "total_bytes": progress.total_bytes(),
        }),
        State::Failed(message) => json!({ "state": "failed", "error": message }),
        State::Opening | State::Ready(_) => json!({ "state": "opening" }),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
}

async fn list(Shared(model): Shared<Arc<Model>>) -> Response {
    match model.state() {
        State::Ready(tensors) => {
            Json(tensors.by_name.values().map(description).collect::<Vec<_>>()).into_response()
        }
        state => not_ready(&state),
    }
}

fn description(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name(),
        "dtype": tensor.dtype().to_string(),
        "shape": tensor.shape(),
        "bytes": tensor.len_bytes(),
    })
}

async fn one(Shared(model): Shared<Arc<Model>>, Path(name): Path<String>) -> Response {
    let tensors = match model.state() {
        State::Ready(tensors) => tensors,
        state => return not_ready(&state),
    };
    let Some(tensor) = tensors.by_name.get(&name).cloned() else {
        return (StatusCode::NOT_FOUND, format!("the model has no tensor {name}")).into_response();
    };
    // A tensor may have gigabytes, so this must not block a thread that serves other requests.
    match tokio::task::spawn_blocking(move || statistics_of(&tensor)).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn statistics_of(tensor: &Tensor) -> Value {
    let mut answer = description(tensor);
    // The value is null for types without statistics and for tensors without elements.
    answer["statistics"] = json!(Statistics::of(tensor));
    answer
}

/// Renders all metrics, after updating those of the model's state.
fn render(model: &Model, metrics: &PrometheusHandle) -> String {
    let state = model.state();
    let (done_bytes, total_bytes) = match &state {
        State::Loading(progress) => (progress.done_bytes(), progress.total_bytes()),
        State::Ready(tensors) => (tensors.summary.bytes, tensors.summary.bytes),
        State::Opening | State::Failed(_) => (0, 0),
    };
    metrics::gauge!("model_ready").set(f64::from(u8::from(matches!(state, State::Ready(_)))));
    metrics::gauge!("model_done_bytes").set(done_bytes as f64);
    metrics::gauge!("model_total_bytes").set(total_bytes as f64);
    metrics.run_upkeep(); // without this the histograms grow indefinitely
    metrics.render()
}
