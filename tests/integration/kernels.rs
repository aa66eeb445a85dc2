//! The PTX in `kernels/` was built from the current sources.

use aws_lc_rs::digest::{SHA256, digest};

/// A module's name, its source, and its PTX.
const MODULES: [(&str, &str, &str); 3] = [
    (
        "scatter",
        include_str!("../../kernels/scatter.cu"),
        include_str!("../../kernels/scatter.ptx"),
    ),
    ("cast", include_str!("../../kernels/cast.cu"), include_str!("../../kernels/cast.ptx")),
    ("crc64", include_str!("../../kernels/crc64.cu"), include_str!("../../kernels/crc64.ptx")),
];

/// The shared sources of all modules, in the order of `build.py`.
const SHARED: [&str; 2] =
    [include_str!("../../kernels/build.py"), include_str!("../../kernels/pieces.cuh")];

#[test]
fn the_ptx_is_built_from_the_current_sources() {
    for (name, source, ptx) in MODULES {
        let sources = [SHARED[0], SHARED[1], source].concat();
        let sum = digest(&SHA256, sources.as_bytes());
        let sum: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            ptx.lines().next().is_some_and(|head| head.ends_with(&sum)),
            "{name}.ptx was built from other sources; run kernels/build.py"
        );
    }
}

/// Drivers from CUDA 12.2 on accept the PTX, for every GPU from compute capability 7.0 on.
#[test]
fn the_ptx_is_old_enough_and_has_every_kernel() {
    for (name, _, ptx) in MODULES {
        assert!(ptx.contains("\n.version 8.2\n.target sm_70\n"), "{name}");
    }
    let kernels = |(_, _, ptx): (&str, &str, &'static str)| {
        ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry ringload_"))
    };
    let mut names: Vec<_> = MODULES.into_iter().flat_map(kernels).collect();
    names.sort_unstable();
    let expected = [
        "cast_bf16_f16(",
        "cast_bf16_f32(",
        "cast_f16_bf16(",
        "cast_f16_f32(",
        "cast_f32_bf16(",
        "cast_f32_f16(",
        "cast_f8_e4m3_bf16(",
        "cast_f8_e4m3_f16(",
        "cast_f8_e4m3_f32(",
        "cast_f8_e5m2_bf16(",
        "cast_f8_e5m2_f16(",
        "cast_f8_e5m2_f32(",
        "crc64(",
        "scatter(",
    ];
    assert_eq!(names, expected);
}
