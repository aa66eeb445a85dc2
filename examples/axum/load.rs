//! The load, on its own thread, and the state that the handlers read.
//!
//! A checkpoint with a `config.json` beside it is a Llama, which candle builds from the tensors that
//! `ringload_candle` loads. Of any other checkpoint, the tensors are kept as ringload loads them.
//!
//! ```text
//! Opening -> Loading -> Ready | Failed         a reload changes `Ready` only when it has succeeded
//! ```

use crate::Outcome;
use crate::generate::{Generator, configuration};
use ringload::{Checkpoint, Loader, Progress, Tensor};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

/// The state of the model.
#[derive(Debug, Clone, Default)]
pub enum State {
    /// Headers are being read.
    #[default]
    Opening,
    /// Tensors are being loaded, as far as this shows.
    Loading(Progress),
    /// All tensors are loaded.
    Ready(Arc<Loaded>),
    /// The load has failed with this message.
    Failed(String),
}

/// A loaded model.
#[derive(Debug)]
pub struct Loaded {
    pub location: String,
    pub loader: Loader,
    pub checkpoint: Arc<Checkpoint>,
    pub weights: Weights,
    /// How long the load took.
    pub seconds: f64,
}

/// The weights of a model.
#[derive(Debug)]
pub enum Weights {
    Llama(Box<Generator>),
    Plain(BTreeMap<String, Tensor>),
}

/// The model's state, shared by the loads and the handlers. The locks are held only to copy the state.
#[derive(Debug, Default)]
pub struct Model {
    state: RwLock<State>,
    /// The state of a reload, while a model is ready.
    reload: RwLock<Option<State>>,
}

impl Model {
    /// Returns the current state.
    pub fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the state of a reload that is running or has failed.
    pub fn reload(&self) -> Option<State> {
        self.reload.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the error message if the load has failed.
    pub fn failure(&self) -> Option<String> {
        match self.state() {
            State::Failed(message) => Some(message),
            State::Opening | State::Loading(_) | State::Ready(_) => None,
        }
    }

    /// Begins a reload. Returns false if one is running, or no model is ready.
    pub fn begin_reload(&self) -> bool {
        let mut reload = self.reload.write().unwrap_or_else(PoisonError::into_inner);
        let is_running = matches!(*reload, Some(State::Opening | State::Loading(_)));
        if is_running || !matches!(self.state(), State::Ready(_)) {
            return false;
        }
        *reload = Some(State::Opening);
        true
    }

    /// Sets the state of the first load, or of the reload if a model is ready.
    fn set(&self, state: State) {
        let mut reload = self.reload.write().unwrap_or_else(PoisonError::into_inner);
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match (&*current, state) {
            (State::Ready(_), State::Ready(model)) => {
                // Requests that use the former model keep it until they are answered.
                *current = State::Ready(model);
                *reload = None;
            }
            (State::Ready(_), state) => *reload = Some(state),
            (_, state) => *current = state,
        }
    }
}

/// Starts to load the checkpoint at `location` into `model`, on a new thread.
///
/// # Errors
/// The system cannot create a thread.
pub fn start(loader: Loader, location: String, model: Arc<Model>) -> io::Result<()> {
    let body = move || {
        let (state, log_line) = match load(&loader, &location, &model) {
            Ok(loaded) => {
                let log_line = format!("ready: {} tensors", loaded.checkpoint.tensors().len());
                (State::Ready(Arc::new(loaded)), log_line)
            }
            Err(error) => (State::Failed(error.to_string()), format!("error: {error}")),
        };
        model.set(state);
        // `eprintln` would panic if standard error is closed.
        let _ = writeln!(io::stderr(), "{log_line}");
    };
    thread::Builder::new().name("load".to_owned()).spawn(body).map(drop)
}

fn load(loader: &Loader, location: &str, model: &Model) -> Outcome<Loaded> {
    let began = Instant::now();
    let checkpoint = Arc::new(loader.open(location)?);
    let progress = Progress::new();
    let watched = loader.clone().progress(&progress);
    model.set(State::Loading(progress));
    let weights = match configuration(location) {
        Some(configuration) => {
            Weights::Llama(Box::new(Generator::load(&watched, location, &configuration)?))
        }
        None => Weights::Plain(load_tensors(&watched, &checkpoint)?),
    };
    let (location, loader, seconds) =
        (location.to_owned(), loader.clone(), began.elapsed().as_secs_f64());
    Ok(Loaded { location, loader, checkpoint, weights, seconds })
}

fn load_tensors(
    loader: &Loader,
    checkpoint: &Arc<Checkpoint>,
) -> Outcome<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for tensor in loader.stream_checkpoint(Arc::clone(checkpoint))? {
        let tensor = tensor?;
        tensors.insert(tensor.name().to_owned(), tensor);
    }
    Ok(tensors)
}
