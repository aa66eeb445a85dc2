//! Plans of tensor parallelism in the form of transformers' configurations.
//!
//! ```text
//! "layers.*.self_attn.q_proj": "colwise"      a module: its weight and its bias
//! "layers.*.mlp.experts.down_proj": "rowwise" a parameter, which goes before its module
//! ```
//!
//! A tensor is looked up by its name in which each number between dots is replaced by `*`, and then by
//! that of its module. A plan of a base model lacks the prefix that the names of a checkpoint have, so
//! names are also looked up without their first parts.
//!
//! | style | weight | bias, and others of one dimension |
//! | --- | --- | --- |
//! | `colwise`, also `_rep`, `_gather_output`, and `local_colwise` | the second last dimension | sliced |
//! | `rowwise`, also `_rep`, `_split_input`, and `local_rowwise` | the last dimension | bias whole |
//! | `packed_colwise` | the second last dimension, of which each half is divided | sliced |
//! | `packed_rowwise`, `local_packed_rowwise` | the last dimension, of which each half is divided | whole |
//! | `embedding_rowwise`, `embedding_colwise`, `grouped_gemm` | dimension 0, 1, 0 | dimension 0, 1, 0 |
//! | those of activations alone, such as `sequence_parallel` | whole | whole |
//!
//! A scalar, such as the scale of a whole tensor, is whole in every style.

use super::slice::Slice;
use crate::checkpoint::TensorInfo;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What a style does to the weights of its modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Column { packed: usize },
    Row { packed: usize },
    Dimension(isize),
    Whole,
}

/// The styles that transformers registers, and those of its earlier versions.
const STYLES: [(&str, Style); 25] = [
    ("colwise", Style::Column { packed: 1 }),
    ("colwise_rep", Style::Column { packed: 1 }),
    ("colwise_gather_output", Style::Column { packed: 1 }),
    ("local_colwise", Style::Column { packed: 1 }),
    ("packed_colwise", Style::Column { packed: 2 }),
    ("rowwise", Style::Row { packed: 1 }),
    ("rowwise_rep", Style::Row { packed: 1 }),
    ("rowwise_split_input", Style::Row { packed: 1 }),
    ("local_rowwise", Style::Row { packed: 1 }),
    ("packed_rowwise", Style::Row { packed: 2 }),
    ("local_packed_rowwise", Style::Row { packed: 2 }),
    ("embedding_rowwise", Style::Dimension(0)),
    ("embedding_colwise", Style::Dimension(1)),
    ("grouped_gemm", Style::Dimension(0)),
    ("all_reduce", Style::Whole),
    ("ep_dispatch_experts", Style::Whole),
    ("ep_router", Style::Whole),
    ("gather", Style::Whole),
    ("local", Style::Whole),
    ("local_params", Style::Whole),
    ("mla_kv_a_proj", Style::Whole),
    ("moe_tp_experts", Style::Whole),
    ("moe_identity_expert", Style::Whole),
    ("replicate", Style::Whole),
    ("sequence_parallel", Style::Whole),
];

/// Another name of a style, which is as long as the table above is wide.
const REPLICATED: &str = "replicated_with_grad_allreduce";

/// The styles of modules, and the rank that loads its part of them.
#[derive(Debug, Clone)]
pub(super) struct TpPlan {
    styles: Arc<HashMap<String, Style>>,
    rank: usize,
    world: usize,
}

impl TpPlan {
    pub fn new<K: Into<String>, S: AsRef<str>>(
        plan: impl IntoIterator<Item = (K, S)>,
        rank: usize,
        world: usize,
    ) -> Result<Self> {
        Slice::share(0, rank, world).check().map_err(Error::invalid_input)?;
        let style = |(name, style): (K, S)| {
            let (name, style) = (name.into(), style.as_ref());
            let known = STYLES.iter().find(|(known, _)| *known == style).map(|&(_, style)| style);
            match known.or((style == REPLICATED).then_some(Style::Whole)) {
                Some(style) => Ok((name, style)),
                None => Err(Error::invalid_input(format!(
                    "the tp_plan has the style {style:?} for {name:?}, which is unknown; known are \
                     {} and others of transformers; write the slices of its tensors as rules",
                    STYLES[..14].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                ))),
            }
        };
        let styles = plan.into_iter().map(style).collect::<Result<_>>()?;
        Ok(Self { styles: Arc::new(styles), rank, world })
    }

    /// The slice of `tensor`; `None` if the plan does not have it.
    pub fn slice_of(&self, tensor: &TensorInfo) -> Option<Slice> {
        let name = with_wildcards(tensor.name());
        let parameter = name.rsplit('.').next().unwrap_or_default();
        let style = self.style_of(&name).or_else(|| self.style_of(name.rsplit_once('.')?.0))?;
        Some(self.slice(style, parameter == "bias", tensor.shape().len()))
    }

    /// The style of a name, also if the plan has it without its first parts.
    fn style_of(&self, mut name: &str) -> Option<Style> {
        loop {
            if let Some(&style) = self.styles.get(name) {
                return Some(style);
            }
            name = name.split_once('.')?.1;
        }
    }

    fn slice(&self, style: Style, is_bias: bool, dims: usize) -> Slice {
        let share = |dim| Slice::share(dim, self.rank, self.world);
        match (style, dims) {
            (Style::Whole, _) | (_, 0) => Slice::whole(),
            (Style::Row { .. }, _) if is_bias => Slice::whole(),
            (Style::Row { packed: 2.. }, 1) => Slice::whole(),
            (Style::Column { .. }, 1) => share(0),
            (Style::Column { packed }, _) => share(-2).packed(packed),
            (Style::Row { packed }, _) => share(-1).packed(packed),
            (Style::Dimension(dim), _) => share(dim),
        }
    }
}

impl fmt::Display for TpPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tp_plan of {} entries for rank {}/{}", self.styles.len(), self.rank, self.world)
    }
}

/// `name` with `*` for each number between dots.
fn with_wildcards(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.split('.').map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}
