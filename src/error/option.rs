//! References to options in messages, which each interface writes as its users write the option.
//!
//! | | `option("memory_limit")` | `option("verify").on()` | `option("pin").set_to("length")` |
//! | --- | --- | --- | --- |
//! | Rust and C | `the option memory_limit` | `the option verify` | `the option pin=length` |
//! | the command | `--memory-limit` | `--verify` | `--pin length` |
//! | Python | `memory_limit=` | `verify=True` | `pin="length"` |
//!
//! The library does not know the interface of its caller. The command and the Python module each
//! link their own copy of it, and tell that copy once, by [`Interface::speak`]. A message contains no
//! name of a flag, only an [`OptionRef`]; `tests/integration/messages.rs` checks that, and that the
//! names are those of options.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// How users set options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// By methods of `Loader`, and by `ringload_loader_set` of C.
    Library = 0,
    /// By flags.
    Command = 1,
    /// By keyword arguments.
    Python = 2,
}

static SPOKEN: AtomicU8 = AtomicU8::new(Interface::Library as u8);

impl Interface {
    /// Makes all messages of this copy of the library name options as this interface does.
    pub fn speak(self) {
        SPOKEN.store(self as u8, Ordering::Relaxed);
    }

    fn spoken() -> Self {
        let known = [Self::Library, Self::Command, Self::Python];
        let spoken = SPOKEN.load(Ordering::Relaxed);
        known.into_iter().find(|known| *known as u8 == spoken).unwrap_or(Self::Library)
    }
}

/// An option in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionRef {
    name: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Any,
    On,
    Text(&'static str),
    Number(usize),
}

/// Refers to the option of a loader that is called `name`, whatever its value.
pub(crate) const fn option(name: &'static str) -> OptionRef {
    OptionRef { name, value: Value::Any }
}

impl OptionRef {
    /// Refers to the option as turned on.
    pub const fn on(self) -> Self {
        Self { value: Value::On, ..self }
    }

    /// Refers to the option with this value.
    pub const fn set_to(self, value: &'static str) -> Self {
        Self { value: Value::Text(value), ..self }
    }

    /// Refers to the option with this number.
    pub const fn set_to_number(self, number: usize) -> Self {
        Self { value: Value::Number(number), ..self }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, interface: Interface) -> fmt::Result {
        let name = self.name;
        match (interface, self.value) {
            (Interface::Library, Value::Text(value)) => write!(f, "the option {name}={value}"),
            (Interface::Library, Value::Number(value)) => write!(f, "the option {name}={value}"),
            (Interface::Library, _) => write!(f, "the option {name}"),
            (Interface::Command, value) => {
                write!(f, "--{}", name.replace('_', "-"))?;
                match value {
                    Value::Text(value) => write!(f, " {value}"),
                    Value::Number(value) => write!(f, " {value}"),
                    Value::Any | Value::On => Ok(()),
                }
            }
            (Interface::Python, value) => {
                f.write_str(if name == "header" { "headers" } else { name })?;
                match value {
                    Value::Any => f.write_str("="),
                    Value::On => f.write_str("=True"),
                    Value::Text(value) => write!(f, "={value:?}"),
                    Value::Number(value) => write!(f, "={value}"),
                }
            }
        }
    }
}

impl fmt::Display for OptionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Interface::spoken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_names_options_as_its_users_write_them() {
        struct As(OptionRef, Interface);
        impl fmt::Display for As {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(f, self.1)
            }
        }
        let limit = option("memory_limit");
        let (verify, pin) = (option("verify").on(), option("pin").set_to("length"));
        for (interface, texts) in [
            (
                Interface::Library,
                ["the option memory_limit", "the option verify", "the option pin=length"],
            ),
            (Interface::Command, ["--memory-limit", "--verify", "--pin length"]),
            (Interface::Python, ["memory_limit=", "verify=True", "pin=\"length\""]),
        ] {
            assert_eq!([limit, verify, pin].map(|one| As(one, interface).to_string()), texts);
        }
        assert_eq!(As(option("header"), Interface::Python).to_string(), "headers=");
        let engines = option("engines").set_to_number(3);
        assert_eq!(As(engines, Interface::Python).to_string(), "engines=3");
        assert_eq!(As(engines, Interface::Command).to_string(), "--engines 3");
        assert_eq!(limit.to_string(), "the option memory_limit");
    }
}
