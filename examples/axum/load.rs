//! The load, on its own thread, and the state that the handlers read.

use ringload::{Loader, Progress, Result, Summary, Tensor};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

/// The state of the model.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// Headers are being read.
    #[default]
    Opening,
    /// Tensors are being loaded.
    Loading(Progress),
    /// All tensors are loaded.
    Ready(Arc<Tensors>),
    /// The load has failed with this message.
    Failed(String),
}

/// The loaded tensors of the model, and the summary of their load.
#[derive(Debug)]
pub struct Tensors {
    pub by_name: BTreeMap<String, Tensor>,
    pub summary: Summary,
}

/// The model's state, shared by the load and the handlers. The lock is held only to copy the state.
#[derive(Debug, Default)]
pub struct Model(RwLock<State>);

impl Model {
    /// Returns the current state.
    pub fn state(&self) -> State {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the error message if the load has failed.
    pub fn failure(&self) -> Option<String> {
        match self.state() {
            State::Failed(message) => Some(message),
            State::Opening | State::Loading(_) | State::Ready(_) => None,
        }
    }

    fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Starts to load the checkpoint at `location` into `model`, on a new thread.
///
/// # Errors
/// The system cannot create a thread.
pub fn start(loader: Loader, location: String, model: Arc<Model>) -> io::Result<()> {
    let body = move || {
        let (state, log_line) = match load(&loader, &location, &model) {
            Ok(tensors) => {
                let log_line = format!("ready: {} tensors", tensors.by_name.len());
                (State::Ready(Arc::new(tensors)), log_line)
            }
            Err(error) => (State::Failed(error.to_string()), format!("error: {error}")),
        };
        model.set(state);
        // `eprintln` would panic if standard error is closed.
        let _ = writeln!(io::stderr(), "{log_line}");
    };
    thread::Builder::new().name("load".to_owned()).spawn(body).map(drop)
}

fn load(loader: &Loader, location: &str, model: &Model) -> Result<Tensors> {
    let mut stream = loader.stream(location)?;
    model.set(State::Loading(stream.progress()));
    let mut by_name = BTreeMap::new();
    for tensor in &mut stream {
        let tensor = tensor?;
        by_name.insert(tensor.name().to_owned(), tensor);
    }
    Ok(Tensors { by_name, summary: stream.summary() })
}
