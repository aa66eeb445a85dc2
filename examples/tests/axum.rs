//! The axum example as a process: it listens before it loads, reports progress and metrics, serves
//! the tensors, and stops after a signal.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/fault_server.rs"]
mod fault_server;
#[path = "../../src/glue/candle/tests/support/llama.rs"]
mod llama;

use fault_server::FaultServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The time limit of each step, which suffices on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The server as a child process, which is killed on drop.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(location: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_axum"))
            .args([location, "--listen", "127.0.0.1:0"])
            .env("RINGLOAD_CONCURRENCY", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address }
    }

    /// Sends a GET request; returns the status and the body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(TIMEOUT)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends a POST request with a body of JSON; returns the status and the body.
    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(TIMEOUT)).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get_json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body:?}")))
    }

    /// Requests `/ready` until `is_reached` returns true; returns the last answer.
    fn poll(&self, is_reached: impl Fn(u16, &Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let (status, answer) = self.get_json("/ready");
            if is_reached(status, &answer) {
                return answer;
            }
            assert!(began.elapsed() < TIMEOUT, "{status} {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM and waits for the process; returns its exit status.
    fn stop(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < TIMEOUT, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, &[u8])]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Serves a checkpoint of three tensors of 8 MiB, whose last third is delayed by `delay`.
fn slow_model(delay: Duration) -> (FaultServer, String) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = vec![3; 8 << 20];
    let tensor = |name| (name, Dtype::U8, vec![8 << 20], &bytes[..]);
    write(&path, &[tensor("a"), tensor("b"), tensor("c")]);
    let server = FaultServer::start(std::fs::read(&path).unwrap(), move |_, request| {
        let is_late = request.range().is_some_and(|(_, last)| last > 20 << 20);
        if is_late { request.right().after(delay) } else { request.right() }
    });
    let url = server.url();
    (server, url)
}

#[test]
fn it_listens_at_once_and_reports_the_progress_of_the_load() {
    let (_store, url) = slow_model(Duration::from_secs(3));
    let server = Server::start(&url);
    assert_eq!(server.get("/healthz"), (200, "ok\n".to_owned()));
    // During the load, some bytes are loaded, and no tensor is served yet.
    let total = 24 << 20;
    let loading = server.poll(|_, answer| answer["done_bytes"].as_u64().unwrap_or(0) > 0);
    let done = loading["done_bytes"].as_u64().unwrap();
    assert_eq!(loading, json!({"state": "loading", "done_bytes": done, "total_bytes": total}));
    assert!(done < total, "{loading}");
    assert_eq!(server.get("/tensors").0, 503);
    assert_eq!(server.get("/tensors/a").0, 503);
    assert!(server.get("/metrics").1.contains("model_ready 0\n"));

    let ready = server.poll(|status, _| status == 200);
    assert_eq!((&ready["state"], &ready["bytes"]), (&json!("ready"), &json!(total)));
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("model_ready 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("model_done_bytes {total}\n")), "{metrics}");
    let counted = r#"ringload_read_bytes_total{source="http",path="http"} "#;
    let line = metrics.lines().find_map(|line| line.strip_prefix(counted));
    let read_bytes: u64 = line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
    assert!(read_bytes >= total, "{read_bytes}");
    assert!(metrics.contains("ringload_read_seconds"), "{metrics}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn tensors_and_their_statistics_are_those_written() {
    let dir = TempDir::new().unwrap();
    let floats: Vec<u8> = [0.5_f32, -1.0, 2.5, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensors: [(&str, Dtype, Vec<usize>, &[u8]); 5] = [
        ("layers/0.weight", Dtype::F32, vec![2, 2], &floats),
        ("bf16", Dtype::BF16, vec![2], &[0x80, 0x3f, 0x00, 0xc0]), // 1 and -2
        ("i16", Dtype::I16, vec![3], &[1, 0, 0xff, 0xff, 3, 0]),   // 1, -1 and 3
        ("mask", Dtype::BOOL, vec![1], &[1]),
        ("nothing", Dtype::F32, vec![0], &[]),
    ];
    write(&dir.path().join("model.safetensors"), &tensors);
    let server = Server::start(dir.path().to_str().unwrap());
    server.poll(|status, _| status == 200);

    let (status, list) = server.get_json("/tensors");
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(status, 200);
    assert_eq!(names, ["bf16", "i16", "layers/0.weight", "mask", "nothing"]);
    let one = json!({
        "name": "layers/0.weight", "dtype": "F32", "shape": [2, 2], "bytes": 16,
        "statistics": {"mean": 1.0, "min": -1.0, "max": 2.5},
    });
    assert_eq!(server.get_json("/tensors/layers/0.weight"), (200, one));
    let statistics =
        |name: &str| server.get_json(&format!("/tensors/{name}")).1["statistics"].clone();
    assert_eq!(statistics("bf16"), json!({"mean": -0.5, "min": -2.0, "max": 1.0}));
    assert_eq!(statistics("i16"), json!({"mean": 1.0, "min": -1.0, "max": 3.0}));
    assert_eq!(statistics("mask"), Value::Null);
    assert_eq!(statistics("nothing"), Value::Null);
    assert_eq!(server.get("/tensors/none"), (404, "the model has no tensor none".to_owned()));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn ready_and_the_exit_status_report_a_failed_load() {
    let dir = TempDir::new().unwrap();
    let location = dir.path().join("none.safetensors");
    let server = Server::start(location.to_str().unwrap());
    let answer = server.poll(|_, answer| answer["state"] == "failed");
    let message = answer["error"].as_str().unwrap();
    assert!(message.contains("none.safetensors"), "{message}");
    assert_eq!(server.get("/ready").0, 503);
    assert_eq!(server.get("/healthz"), (500, message.to_owned()));
    assert_eq!(server.stop(), Some(1));
}

#[test]
fn a_stop_does_not_wait_for_a_load_that_stalls() {
    let (_store, url) = slow_model(TIMEOUT * 2);
    let server = Server::start(&url);
    server.poll(|_, answer| answer["state"] == "loading");
    let began = Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(began.elapsed() < TIMEOUT / 2);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_axum"))
        .args(["/none", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(&format!("cannot listen at {address}")), "{errors}");
}

/// Writes a Llama with weights of its own and the configuration of transformers.
fn write_llama(directory: &Path, hidden: usize) {
    let config = llama::config(hidden, 2 * hidden, 300, 2);
    llama::write(directory, &config, Dtype::BF16, 2).unwrap();
    let config = json!({
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "vocab_size": 300,
        "num_hidden_layers": 2, "num_attention_heads": hidden / 64, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64,
    });
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

/// A server answers while it loads another checkpoint, then answers with that one; a checkpoint that
/// cannot be loaded leaves the present one in place.
#[test]
fn a_model_answers_and_is_replaced_without_a_stop() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_llama(one.path(), 64);
    write_llama(two.path(), 128);
    let server = Server::start(one.path().to_str().unwrap());
    server.poll(|status, _| status == 200);
    let prompt = json!({"tokens": [1, 20, 30], "count": 8});
    let answer = || {
        let (status, body) = server.post("/generate", &prompt);
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["tokens"].as_array().unwrap().len(), 8);
        answer
    };
    let first = answer();
    assert_eq!(answer(), first);
    assert_eq!(server.post("/generate", &json!({"tokens": [300], "count": 1})).0, 400);

    let missing = json!({"location": one.path().join("none.safetensors")});
    assert_eq!(server.post("/reload", &missing).0, 202);
    let failed = server.poll(|_, ready| ready["reload"]["state"] == "failed");
    assert!(failed["reload"]["error"].as_str().unwrap().contains("none.safetensors"), "{failed}");
    assert_eq!((&failed["state"], answer()), (&json!("ready"), first.clone()));

    assert_eq!(server.post("/reload", &json!({"location": two.path()})).0, 202);
    let is_two = |ready: &Value| ready["location"] == json!(two.path());
    server.poll(|status, ready| status == 200 && is_two(ready));
    assert_ne!(answer(), first);
    assert_eq!(server.get_json("/tensors/model.norm.weight").1["shape"], json!([128]));
    assert_eq!(server.stop(), Some(0));
}
