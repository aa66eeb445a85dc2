//! Globs of names.
//!
//! | | matches |
//! | --- | --- |
//! | `*` | any text, also with dots and slashes |
//! | `**` | the same; as a whole component, as in `a/**/b`, any number of components |
//! | `?` | one byte |
//! | `[ab]`, `[a-z]`, `[!ab]` | one of these bytes, or any other |
//! | `{a,b}` | one of these globs |
//! | `\*` | the character itself |
//!
//! A glob is compiled to the steps of a nondeterministic automaton. All steps that the beginning of a
//! name leads to are followed at once, so that the time is at most proportional to the length of the
//! name times that of the glob, whatever the glob.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

/// A compiled glob. `Display` writes its text.
#[derive(Clone)]
pub(crate) struct Glob {
    text: String,
    /// The bytes that the glob begins with. Most names differ in them.
    prefix: Vec<u8>,
    steps: Vec<Step>,
}

/// A step of the automaton, which goes on with the next step if nothing else is said.
#[derive(Clone)]
enum Step {
    /// Takes this byte.
    Byte(u8),
    /// Takes any byte.
    Any,
    /// Takes a byte of the class.
    Class(Box<[bool; 256]>),
    /// Goes on with the next step, and with this one, too.
    Fork(usize),
    /// Goes on with this step.
    Jump(usize),
}

impl Glob {
    /// Compiles a glob.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the glob.
    pub fn new(text: &str) -> Result<Self> {
        let mut compiler = Compiler { glob: text.as_bytes(), ..Compiler::default() };
        match compiler.compile() {
            Ok(()) => {
                let bytes = compiler.steps.iter().map_while(|step| match step {
                    Step::Byte(byte) => Some(*byte),
                    _ => None,
                });
                let prefix = bytes.collect();
                Ok(Self { text: text.to_owned(), prefix, steps: compiler.steps })
            }
            Err(why) => {
                let sentence = format!("{text:?} is not a valid glob");
                Err(Error::new(ErrorKind::InvalidInput, sentence).with_source(why))
            }
        }
    }

    /// Whether all of `name` matches.
    pub fn is_match(&self, name: impl AsRef<[u8]>) -> bool {
        let Some(rest) = name.as_ref().strip_prefix(&*self.prefix) else { return false };
        let (mut now, mut next) = (Reached::new(&self.steps), Reached::new(&self.steps));
        now.add(&self.steps, self.prefix.len());
        for &byte in rest {
            for &at in &now.list {
                let takes = match self.steps.get(at) {
                    Some(Step::Byte(wanted)) => *wanted == byte,
                    Some(Step::Any) => true,
                    Some(Step::Class(class)) => class[usize::from(byte)],
                    Some(Step::Fork(_) | Step::Jump(_)) | None => false,
                };
                if takes {
                    next.add(&self.steps, at + 1);
                }
            }
            std::mem::swap(&mut now, &mut next);
            next.clear();
            if now.list.is_empty() {
                return false;
            }
        }
        now.list.contains(&self.steps.len())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The steps that were reached.
struct Reached {
    list: Vec<usize>,
    is_in_list: Vec<bool>,
}

impl Reached {
    fn new(steps: &[Step]) -> Self {
        Self { list: Vec::new(), is_in_list: vec![false; steps.len() + 1] }
    }

    /// Adds the step at `at`, and those that follow from it before a byte is taken.
    fn add(&mut self, steps: &[Step], at: usize) {
        if std::mem::replace(&mut self.is_in_list[at], true) {
            return;
        }
        self.list.push(at);
        match steps.get(at) {
            Some(&Step::Fork(to)) => {
                self.add(steps, at + 1);
                self.add(steps, to);
            }
            Some(&Step::Jump(to)) => self.add(steps, to),
            _ => {}
        }
    }

    fn clear(&mut self) {
        self.list.drain(..).for_each(|at| self.is_in_list[at] = false);
    }
}

/// A glob that is being compiled.
#[derive(Default)]
struct Compiler<'a> {
    glob: &'a [u8],
    /// The position in the glob.
    at: usize,
    steps: Vec<Step>,
    /// In how many braces the position is.
    depth: usize,
}

/// A `**` that is a whole component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Components {
    /// At the beginning, with the slash behind it.
    Leading,
    /// With the slashes on both sides.
    Inner,
    /// At the end, with the slash before it.
    Trailing,
}

impl Compiler<'_> {
    fn compile(&mut self) -> Result<(), &'static str> {
        if self.sequence()? {
            self.steps.clear();
            self.any_text();
        }
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("a closing brace has no opening one"),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.glob.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Compiles up to the end of the glob, or of an alternative. Returns whether that is nothing but a
    /// leading `**`.
    fn sequence(&mut self) -> Result<bool, &'static str> {
        let first = self.steps.len();
        // Where the last element begins, and whether it is such a component.
        let (mut last, mut components) = (first, None);
        let mut is_first = true;
        while let Some(byte) = self.peek() {
            if byte == b'}' || byte == b',' && self.depth > 0 {
                break;
            }
            self.at += 1;
            let mut start = self.steps.len();
            let mut found = None;
            match byte {
                b'?' => self.steps.push(Step::Any),
                b'[' => self.class()?,
                b'{' => self.alternatives()?,
                b'\\' => {
                    let escaped = self.next().ok_or("nothing follows the last backslash")?;
                    self.steps.push(Step::Byte(escaped));
                }
                b'*' if self.peek() == Some(b'*') => {
                    self.at += 1;
                    found = self.components(is_first);
                    match found {
                        Some(kind) if kind != Components::Leading => {
                            // The slash, or such a component, that this one takes in.
                            self.steps.truncate(last);
                            start = last;
                            let taken_in = components.filter(|&it| it != Components::Inner);
                            found = taken_in.or(Some(kind));
                        }
                        _ => {}
                    }
                    self.any_components(found);
                }
                b'*' => self.any_text(),
                other => self.steps.push(Step::Byte(other)),
            }
            (last, components, is_first) = (start, found, false);
        }
        Ok(components == Some(Components::Leading) && last == first)
    }

    /// What the two stars before the position are, if they are a whole component. Goes on behind its
    /// slash.
    fn components(&mut self, is_first: bool) -> Option<Components> {
        let before = self.at.checked_sub(3).map(|at| self.glob[at]);
        let kind = match self.peek() {
            None => [Components::Leading, Components::Trailing][usize::from(!is_first)],
            Some(b'/') if is_first => Components::Leading,
            Some(b'/') => Components::Inner,
            Some(b',' | b'}') if self.depth > 0 && !is_first => Components::Trailing,
            Some(_) => return None,
        };
        if !is_first && before != Some(b'/') {
            return None;
        }
        self.at += usize::from(self.peek() == Some(b'/'));
        Some(kind)
    }

    fn any_components(&mut self, kind: Option<Components>) {
        if matches!(kind, Some(Components::Inner | Components::Trailing)) {
            self.steps.push(Step::Byte(b'/'));
        }
        match kind {
            Some(Components::Leading | Components::Inner) => {
                let fork = self.steps.len();
                self.steps.push(Step::Fork(0));
                self.any_text();
                self.steps.push(Step::Byte(b'/'));
                self.steps[fork] = Step::Fork(self.steps.len());
            }
            Some(Components::Trailing) | None => self.any_text(),
        }
    }

    fn any_text(&mut self) {
        let start = self.steps.len();
        self.steps.extend([Step::Fork(start + 3), Step::Any, Step::Jump(start)]);
    }

    /// Compiles a class, behind its opening bracket.
    fn class(&mut self) -> Result<(), &'static str> {
        let is_negated = matches!(self.peek(), Some(b'!' | b'^'));
        self.at += usize::from(is_negated);
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        // Whether the last byte was the dash of a range.
        let mut is_range = false;
        loop {
            match (self.next().ok_or("a class has no closing bracket")?, ranges.last_mut()) {
                (b']', Some(_)) => break,
                (b'-', Some(_)) if !is_range => is_range = true,
                (to, Some((from, end))) if is_range => {
                    if to < *from {
                        return Err("a range of a class ends before it begins");
                    }
                    (*end, is_range) = (to, false);
                }
                (byte, _) => ranges.push((byte, byte)),
            }
        }
        let mut class = Box::new([false; 256]);
        ranges.extend(is_range.then_some((b'-', b'-')));
        for (from, to) in ranges {
            class[usize::from(from)..=usize::from(to)].fill(true);
        }
        if is_negated {
            class.iter_mut().for_each(|is_in| *is_in = !*is_in);
        }
        self.steps.push(Step::Class(class));
        Ok(())
    }

    /// Compiles alternatives, behind their opening brace. Empty ones do not count.
    fn alternatives(&mut self) -> Result<(), &'static str> {
        self.depth += 1;
        let (mut fork, mut ends) = (None, Vec::new());
        loop {
            // What the last alternative's fork leads to is this one.
            let before = self.steps.len();
            self.steps.push(Step::Fork(0));
            self.sequence()?;
            if self.steps.len() == before + 1 {
                self.steps.pop();
            } else {
                ends.push(self.steps.len());
                self.steps.push(Step::Jump(0));
                self.steps[before] = Step::Fork(self.steps.len());
                fork = Some(before);
            }
            match self.next() {
                Some(b',') => {}
                Some(_) => break,
                None => return Err("an opening brace has no closing one"),
            }
        }
        self.depth -= 1;
        let end = self.steps.len();
        ends.into_iter().for_each(|jump| self.steps[jump] = Step::Jump(end));
        // Behind the last alternative there is none to try.
        if let Some(fork) = fork {
            self.steps[fork] = Step::Jump(fork + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "glob_tests.rs"]
mod tests;
