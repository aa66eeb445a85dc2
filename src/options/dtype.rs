//! The type that floats are cast to while they are loaded.

use super::parse::invalid;
use crate::dtype::Dtype;
use crate::error::Result;

/// Parses the name of a type that tensors can be cast to: `f32`, `f16` or `bf16`, also written
/// `float32`, `float16` and `bfloat16`, in upper or lower case, and as torch writes its types
/// (`torch.bfloat16`).
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for any other type.
pub fn parse_dtype(text: &str) -> Result<Dtype> {
    let name = text.to_ascii_lowercase();
    match name.strip_prefix("torch.").unwrap_or(&name) {
        "f32" | "float32" => Ok(Dtype::F32),
        "f16" | "float16" => Ok(Dtype::F16),
        "bf16" | "bfloat16" => Ok(Dtype::BF16),
        _ => refuse(&format!("{text:?}")),
    }
}

/// Fails if tensors cannot be cast to `dtype`.
pub(crate) fn check_dtype(dtype: Dtype) -> Result<()> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
        other => refuse(&other.to_string()),
    }
}

fn refuse<T>(dtype: &str) -> Result<T> {
    invalid(format!("tensors cannot be cast to {dtype}; use f32, f16 or bf16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_to_cast_to_have_two_names_each_and_others_are_refused() {
        for (text, dtype) in [
            ("f32", Dtype::F32),
            ("float16", Dtype::F16),
            ("F16", Dtype::F16),
            ("bf16", Dtype::BF16),
            ("BFloat16", Dtype::BF16),
            ("torch.bfloat16", Dtype::BF16),
            ("torch.float32", Dtype::F32),
        ] {
            assert_eq!(parse_dtype(text).unwrap(), dtype);
            assert!(check_dtype(dtype).is_ok());
        }
        for text in ["int4", "f64", "", "f8_e4m3", "half", "bf 16", "torch.", "torch.int8"] {
            let error = parse_dtype(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("f32, f16 or bf16"), "{error}");
        }
        assert!(check_dtype(Dtype::I64).unwrap_err().to_string().contains("I64"));
    }
}
