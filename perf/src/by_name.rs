//! A model builder that asks for tensors by name, compared with a plain stream, from the emulated store.
//!
//! ```text
//! for each order and limit:  stream, by_name, by_name, stream, ...   --> the ratios of the pairs
//! ```
//!
//! The checkpoint is a Llama of 219 tensors, sorted by name, as savers write them. The builder asks in the
//! order of candle's Llama (`lm_head` right after the embeddings, and each layer in an order of its own),
//! in that of the file, where layer 10 follows layer 1, or in a random one. The stream has the same memory
//! limit. Under a limit both drop each tensor, and without one both keep all. They run in this process,
//! and each loader is new, so that each opens its connections.
//!
//! A random order that nobody told has no target under a limit: nothing can be read ahead for it.

use crate::store::{Emulated, Settings};
use anyhow::{Context, Result};
use ringload::{Dtype, Loader, MemoryLimit, Order};
use ringload_measure::checkpoint::{self, Tensor};
use ringload_measure::stats::{self, estimate};
use ringload_measure::table::{markdown, number};
use std::time::Instant;

/// The most that an order may take of the time of a stream.
const TARGET: f64 = 1.1;
const LAYERS: usize = 24;
/// The attention and the MLP of a layer, with the number of rows and columns of each, in the order in
/// which candle asks.
const LAYER: [(&str, &[usize]); 9] = [
    ("self_attn.q_proj", &[1, 1]),
    ("self_attn.k_proj", &[1, 1]),
    ("self_attn.v_proj", &[1, 1]),
    ("self_attn.o_proj", &[1, 1]),
    ("mlp.gate_proj", &[3, 1]),
    ("mlp.up_proj", &[3, 1]),
    ("mlp.down_proj", &[1, 3]),
    ("input_layernorm", &[1]),
    ("post_attention_layernorm", &[1]),
];

/// Compare a builder that asks by name with a plain stream, from an emulated store
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time to the first byte of an answer, in milliseconds
    #[arg(long, default_value_t = 20.0)]
    first_byte: f64,
    /// The rate of each connection, in MB/s
    #[arg(long, default_value_t = 50.0)]
    each: f64,
    /// The rate of all connections together, in MB/s
    #[arg(long, default_value_t = 1000.0)]
    total: f64,
    /// The width of the model; 1536 makes 1.5 GB
    #[arg(long, default_value_t = 1536)]
    width: usize,
    /// The memory limit of the limited cases, in MiB
    #[arg(long, default_value_t = 256)]
    limit: u64,
    /// The number of pairs
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Only the orders whose description contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// How the builder asks.
struct Case {
    what: &'static str,
    limit: MemoryLimit,
    names: Vec<String>,
    /// Whether the loader is told the order beforehand.
    is_foreseen: bool,
    has_target: bool,
}

/// Runs the comparison.
///
/// # Errors
/// When the checkpoint cannot be written, or a load fails.
pub fn run(args: &Args) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let asked = tensors(args.width);
    let mut stored = asked.clone();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    checkpoint::write_sparse(&directory.path().join("model.safetensors"), &stored)?;
    let settings = Settings {
        first_byte: args.first_byte,
        each: Some(args.each),
        total: Some(args.total),
        ..Settings::local()
    };
    let store = Emulated::start(directory.path(), None, &settings)?;
    let url = format!("{}/model.safetensors", store.server.http);
    let bytes = checkpoint::data_bytes(&stored);
    println!(
        "{:.2} GB in {} tensors, from a store: {}",
        bytes as f64 / 1e9,
        stored.len(),
        settings.words()
    );
    let mut rows = Vec::new();
    let is_wanted = |case: &Case| case.what.contains(&args.only);
    for case in cases(&asked, args.limit).into_iter().filter(is_wanted) {
        rows.push(compare(&case, &url, args.pairs)?);
    }
    let head = ["order", "stream: s", "by_name: s", "ratio", "from", "to", "at most 1.1"];
    println!("{}", markdown(&head, &rows));
    Ok(())
}

/// The tensors in the order in which candle's Llama asks for them.
fn tensors(width: usize) -> Vec<Tensor> {
    let tensor = |name: String, shape: &[usize]| {
        let shape: Vec<_> = shape.iter().map(|times| times * width).collect();
        Tensor::new(name, Dtype::BF16, &shape)
    };
    let vocabulary = [20, 1];
    let mut tensors = vec![
        tensor("model.embed_tokens.weight".to_owned(), &vocabulary),
        tensor("lm_head.weight".to_owned(), &vocabulary),
        tensor("model.norm.weight".to_owned(), &[1]),
    ];
    let layers = (0..LAYERS).flat_map(|layer| LAYER.map(|(name, shape)| (layer, name, shape)));
    tensors.extend(
        layers.map(|(layer, name, shape)| {
            tensor(format!("model.layers.{layer}.{name}.weight"), shape)
        }),
    );
    tensors
}

fn cases(asked: &[Tensor], limit_mib: u64) -> Vec<Case> {
    let candle: Vec<_> = asked.iter().map(|tensor| tensor.name.clone()).collect();
    let mut shuffled = candle.clone();
    fastrand::Rng::with_seed(17).shuffle(&mut shuffled);
    let limit = MemoryLimit::Bytes(limit_mib << 20);
    let mut in_file = candle.clone();
    in_file.sort();
    let case = |what, limit, names: &[String], is_foreseen| Case {
        what,
        limit,
        names: names.to_vec(),
        is_foreseen,
        has_target: true,
    };
    let adverse = Case { has_target: false, ..case("random, limited", limit, &shuffled, false) };
    vec![
        case("candle's", MemoryLimit::Unlimited, &candle, false),
        case("random", MemoryLimit::Unlimited, &shuffled, false),
        case("candle's, limited", limit, &candle, false),
        case("the file's, limited", limit, &in_file, false),
        case("candle's, limited, told", limit, &candle, true),
        case("random, limited, told", limit, &shuffled, true),
        adverse,
    ]
}

fn compare(case: &Case, url: &str, pairs: usize) -> Result<Vec<String>> {
    let (mut streams, mut builders) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for first in [pair % 2 == 0, pair % 2 != 0] {
            match first {
                true => streams.push(seconds(|| stream(case, url))?),
                false => builders.push(seconds(|| build(case, url))?),
            }
        }
    }
    let ratio = estimate(&stats::ratios(&builders, &streams)).context("no pairs")?;
    let outcome = match case.has_target {
        false => "no target",
        true if ratio.median <= TARGET => "met",
        true => "MISSED",
    };
    let median = |figures: &[f64]| number(stats::median(figures).unwrap_or(f64::NAN));
    let [median_ratio, low, high] = [ratio.median, ratio.low, ratio.high].map(number);
    let (stream, builder) = (median(&streams), median(&builders));
    Ok(vec![case.what.to_owned(), stream, builder, median_ratio, low, high, outcome.to_owned()])
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

/// What a program has of its tensors: all of them, or none where a limit makes it drop each.
struct Received(Option<Vec<ringload::Tensor>>);

impl Received {
    fn new(case: &Case) -> Self {
        Self((case.limit == MemoryLimit::Unlimited).then(Vec::new))
    }

    fn take(&mut self, tensor: ringload::Tensor) {
        self.0.iter_mut().for_each(|all| all.push(tensor.clone()));
    }
}

fn stream(case: &Case, url: &str) -> Result<()> {
    let mut received = Received::new(case);
    for tensor in Loader::new().memory_limit(case.limit).stream(url)? {
        received.take(tensor?);
    }
    Ok(())
}

fn build(case: &Case, url: &str) -> Result<()> {
    let mut loader = Loader::new().memory_limit(case.limit);
    if case.is_foreseen {
        loader = loader.order(Order::names(&case.names[..]));
    }
    let tensors = loader.by_name(url)?;
    let mut received = Received::new(case);
    for name in &case.names {
        received.take(tensors.get(name)?);
    }
    tensors.finish()?;
    Ok(())
}
