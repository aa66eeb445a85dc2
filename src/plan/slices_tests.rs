#![allow(
    clippy::single_range_in_vec_init,
    clippy::reversed_empty_ranges,
    reason = "a slice takes an array of ranges, and refuses reversed ones"
)]

use super::*;
use crate::source::memory::MemorySource;
use crate::test_files::checkpoint_of;

/// A checkpoint of tensors of zeros.
pub(super) fn checkpoint(tensors: &[(&str, &str, &[usize])]) -> Arc<Checkpoint> {
    let (mut entries, mut end) = (Vec::new(), 0);
    for (name, dtype, shape) in tensors {
        let bits = match *dtype {
            "F4" => 4,
            "U8" | "F8_E4M3" => 8,
            "F32" => 32,
            _ => 16,
        };
        let begin = end;
        end += shape.iter().product::<usize>() * bits / 8;
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.resize(file.len() + end, 0);
    checkpoint_of(vec![MemorySource::new("t.safetensors", file)])
}

/// The shape of each tensor as sliced.
fn shapes(slices: &Slices, checkpoint: &Checkpoint) -> Result<Vec<(String, Vec<usize>)>> {
    let all: Vec<u32> = (0..checkpoint.tensors().len() as u32).collect();
    let parts = slices.parts(checkpoint, &all)?;
    let shape = |(tensor, part): (&TensorInfo, &Option<TensorPart>)| {
        let shape = part.as_ref().map_or(tensor.shape(), |part| part.shape());
        (tensor.name().to_owned(), shape.to_vec())
    };
    Ok(checkpoint.tensors().iter().zip(&parts).map(shape).collect())
}

fn shape_of(slices: &Slices, checkpoint: &Checkpoint, name: &str) -> Vec<usize> {
    let shapes = shapes(slices, checkpoint).unwrap();
    shapes.into_iter().find(|(found, _)| found == name).unwrap().1
}

#[test]
fn the_first_rule_that_matches_counts_whatever_its_kind() {
    let checkpoint = checkpoint(&[
        ("a.o_proj", "BF16", &[8, 8]),
        ("a.q_proj", "BF16", &[8, 8]),
        ("a.scale", "F32", &[8]),
        ("norm[0]", "F32", &[8]),
    ]);
    let rules = Slices::default()
        .with("a.q_proj", Slice::share(0, 0, 8))
        .and_then(|slices| slices.with("*o_proj", Slice::share(1, 0, 4)))
        .and_then(|slices| slices.with("*_proj", Slice::share(0, 0, 2)))
        .and_then(|slices| slices.with_name("norm[0]", Slice::new([0..1])))
        .and_then(|slices| {
            let matches = |tensor: &TensorInfo| tensor.dtype() == crate::Dtype::F32;
            slices.with_matching("all of F32", matches, Slice::new([2..4]))
        })
        .unwrap();
    let shapes: Vec<_> = shapes(&rules, &checkpoint).unwrap().into_iter().map(|of| of.1).collect();
    assert_eq!(shapes, [vec![8, 2], vec![1, 8], vec![2], vec![1]]);
    assert!(format!("{rules:?}").contains("*o_proj=1:0/4"), "{rules:?}");
}

/// A rule for a tensor that was renamed must not load it whole on every rank without a word.
#[test]
fn rules_that_match_nothing_or_do_not_fit_are_named() {
    let checkpoint =
        checkpoint(&[("w", "BF16", &[8, 6]), ("scalar", "F32", &[]), ("four", "F4", &[2, 6])]);
    let share = |dim, rank, world| Slice::share(dim, rank, world);
    for (glob, slice, kind, expected) in [
        ("x", share(0, 0, 2), ErrorKind::NotFound, "no tensor called \"x\""),
        ("x*", share(0, 0, 2), ErrorKind::NotFound, "no tensor matches the slice x*=0:0/2"),
        ("w", share(2, 0, 2), ErrorKind::InvalidInput, "tensor \"w\" of BF16 [8, 6]"),
        ("w", share(0, 8, 9), ErrorKind::InvalidInput, "by the rule w=0:8/9: rank 8 of 9 gets"),
        ("s*", share(0, 0, 2), ErrorKind::InvalidInput, "tensor \"scalar\" of F32 []"),
        ("four", share(1, 0, 2), ErrorKind::InvalidInput, "would cut a byte"),
    ] {
        let slices = Slices::default().with(glob, slice).unwrap();
        let error = shapes(&slices, &checkpoint).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for (rule, expected) in [
        ("w=0:0/0", "the slice w=0:0/0 is of no tensor: the number of ranks is 0"),
        ("w=0:4/4", "rank 4 is not below the number of ranks, 4"),
        ("w", "\"w\" is not a slice; use GLOB=DIM:RANK/WORLD"),
        ("w=0", "is not a slice"),
        ("w=x:0/4", "is not a slice"),
        ("w=0:+0/4", "is not a slice"),
        ("w=0:-1/4", "is not a slice"),
        ("[=0:0/4", "\"[\" is not a valid glob"),
    ] {
        let error = Slices::default().with_text(rule).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let slices = Slices::default().with_text("w*=-1:1/3").unwrap();
    assert_eq!(shape_of(&slices, &checkpoint, "w"), [8, 2]);
}

#[test]
fn a_tp_plan_of_transformers_goes_in_as_it_is() {
    let checkpoint = checkpoint(&[
        ("model.embed_tokens.weight", "BF16", &[12, 4]),
        ("model.layers.0.self_attn.q_proj.weight", "BF16", &[8, 4]),
        ("model.layers.0.self_attn.q_proj.bias", "BF16", &[8]),
        ("model.layers.0.self_attn.o_proj.weight", "BF16", &[4, 8]),
        ("model.layers.0.self_attn.o_proj.bias", "BF16", &[4]),
        ("model.layers.0.self_attn.o_proj.weight_scale", "F32", &[]),
        ("model.layers.11.mlp.experts.gate_up_proj", "BF16", &[3, 16, 4]),
        ("model.layers.11.mlp.experts.down_proj", "BF16", &[3, 4, 8]),
        ("model.layers.11.mlp.experts.router", "BF16", &[3, 4]),
        ("model.norm.weight", "BF16", &[4]),
    ]);
    let plan = [
        ("layers.*.self_attn.q_proj", "colwise"),
        ("layers.*.self_attn.o_proj", "rowwise"),
        ("layers.*.mlp.experts.gate_up_proj", "packed_colwise"),
        ("layers.*.mlp.experts.down_proj", "rowwise"),
        ("layers.*.mlp.experts", "moe_tp_experts"),
        ("layers.*.self_attn.q_norm", "replicated_with_grad_allreduce"),
        ("model.embed_tokens", "embedding_rowwise"),
        // The head is tied to the embedding, and the checkpoint does not have it.
        ("lm_head", "colwise_gather_output"),
    ];
    let slices = Slices::default().with_tp_plan(plan, 1, 2).unwrap();
    let shapes: Vec<_> = shapes(&slices, &checkpoint).unwrap().into_iter().map(|of| of.1).collect();
    let expected: [&[usize]; 10] =
        [&[6, 4], &[4, 4], &[4], &[4, 4], &[4], &[], &[3, 8, 4], &[3, 4, 4], &[3, 4], &[4]];
    assert_eq!(shapes, expected);
    let other = Slices::default().with_tp_plan([("decoder.*.fc", "colwise")], 0, 2).unwrap();
    let error = self::shapes(&other, &checkpoint).unwrap_err();
    assert!(error.to_string().contains("tp_plan of 1 entries for rank 0/2"), "{error}");
    let unknown = Slices::default().with_tp_plan([("a.b", "diagonal")], 0, 2).unwrap_err();
    let text = unknown.to_string();
    assert!(text.contains("\"diagonal\" for \"a.b\"") && text.contains("rowwise"), "{text}");
    for (rank, world) in [(2, 2), (0, 0)] {
        let error = Slices::default().with_tp_plan([("a", "colwise")], rank, world).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
#[ignore = "times a release build; run with --release -- --ignored --nocapture"]
fn a_hundred_thousand_slices_are_resolved_fast() {
    let names: Vec<String> = (0..100_000).map(|i| format!("model.layers.{i}.mlp.weight")).collect();
    let tensors: Vec<_> = names.iter().map(|name| (&name[..], "BF16", &[8, 8][..])).collect();
    let checkpoint = checkpoint(&tensors);
    let by_name = |slices: Result<Slices>, name: &String| slices?.with(name, Slice::share(1, 0, 2));
    let plan = [("layers.*.mlp", "rowwise")];
    for (what, slices) in [
        ("names", names.iter().fold(Ok(Slices::default()), by_name).unwrap()),
        ("a glob", Slices::default().with("*.weight", Slice::share(1, 0, 2)).unwrap()),
        ("a tp_plan", Slices::default().with_tp_plan(plan, 0, 2).unwrap()),
    ] {
        let began = std::time::Instant::now();
        assert_eq!(shape_of(&slices, &checkpoint, &names[7]), [8, 4]);
        println!("100,000 slices by {what} resolved in {:?}", began.elapsed());
    }
}
