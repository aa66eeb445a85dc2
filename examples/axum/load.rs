//! The load, on a thread of its own, and what it leaves for the handlers to read.

use ringload::{Loader, Progress, Result, Summary, Tensor};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

/// How far the model is.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// Headers are being read.
    #[default]
    Opening,
    /// Tensors come.
    Loading(Progress),
    /// All are there.
    Ready(Arc<Tensors>),
    /// Why it will never be ready.
    Failed(String),
}

/// The tensors of the model, resident, and what their load did.
#[derive(Debug)]
pub struct Tensors {
    pub by_name: BTreeMap<String, Tensor>,
    pub summary: Summary,
}

/// The model's state, shared by the load and the handlers. Locks are held to copy it, never longer.
#[derive(Debug, Default)]
pub struct Model(RwLock<State>);

impl Model {
    /// How far it is now.
    pub fn state(&self) -> State {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why it could not be loaded, if so.
    pub fn failure(&self) -> Option<String> {
        match self.state() {
            State::Failed(sentence) => Some(sentence),
            State::Opening | State::Loading(_) | State::Ready(_) => None,
        }
    }

    fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Starts to load what is at `location` into `model`.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(loader: Loader, location: String, model: Arc<Model>) -> io::Result<()> {
    let body = move || {
        let (state, news) = match load(&loader, &location, &model) {
            Ok(tensors) => {
                let news = format!("ready: {} tensors", tensors.by_name.len());
                (State::Ready(Arc::new(tensors)), news)
            }
            Err(error) => (State::Failed(error.to_string()), format!("error: {error}")),
        };
        model.set(state);
        // `eprintln` would panic where nobody listens any more.
        let _ = writeln!(io::stderr(), "{news}");
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
