//! Which facts a template uses, and where; which helpers and partials it names.
//!
//! The library's strict mode only sees what a rendering happens to reach, and takes an unknown name in `{{#if}}`
//! for false. So the parsed template is walked: each path is resolved through `each`, `with`, `as |x|` and the
//! values given to a partial, as far as that can be known without facts. What stands for an item of a list is
//! free: nobody can say what it holds.

use crate::suggest;
use crate::template::engine::{Fault, Parsed, offset_of};
use crate::template::helpers;
use crate::template::{MAX_OUTPUT, Variable};
use handlebars::template::{
    BlockParam, DecoratorTemplate, HelperTemplate, Parameter, Template, TemplateElement,
};
use std::collections::BTreeMap;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Facts used.
    pub uses: Vec<Found>,
    /// What is wrong.
    pub faults: Vec<FoundFault>,
    /// Partials named by the template itself, and where.
    pub partials: Vec<(String, usize)>,
}

/// A fact used, and in which partial (`None`: in the template itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The fact and its place.
    pub variable: Variable,
    /// The partial it stands in.
    pub partial: Option<String>,
}

/// A fault, and in which partial (`None`: in the template itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFault {
    /// What is wrong and where.
    pub fault: Fault,
    /// The partial it stands in.
    pub partial: Option<String>,
}

/// Finds a partial by name, parsed and as written.
pub type Partials<'a> = dyn Fn(&str) -> Option<(&'a Parsed, &'a str)> + 'a;

/// Walks a template. Where `partials` knows a partial it is walked too, with what it is given; the caller has made
/// sure that they do not include each other and that their expansion is bounded.
pub fn walk<'a>(template: &Parsed, source: &str, partials: &'a Partials<'a>) -> Walked {
    let mut walker = Walker {
        partials,
        walked: Walked::default(),
        source,
        inside: None,
        frames: vec![Frame::new(Place::At(Vec::new()))],
        guards: Vec::new(),
    };
    walker.template(template, 0);
    walker.walked
}

/// Bytes a template can be expanded to, partials included, without facts and loops.
pub fn weight(source: &str, partials: &[(String, usize)], weights: &BTreeMap<String, usize>) -> usize {
    partials
        .iter()
        .map(|(name, _)| weights.get(name).copied().unwrap_or(0).saturating_add(1000))
        .fold(source.len(), usize::saturating_add)
        .min(MAX_OUTPUT.saturating_mul(2))
}

/// What a name stands for.
#[derive(Clone, Debug)]
enum Place {
    /// The fact of that path; empty: all facts.
    At(Vec<String>),
    /// Something that facts alone tell.
    Free,
}

/// A block that changes what names mean.
struct Frame {
    context: Place,
    names: BTreeMap<String, Place>,
}

impl Frame {
    fn new(context: Place) -> Frame {
        Frame {
            context,
            names: BTreeMap::new(),
        }
    }
}

struct Walker<'a, 'w> {
    partials: &'a Partials<'a>,
    walked: Walked,
    source: &'w str,
    inside: Option<String>,
    frames: Vec<Frame>,
    guards: Vec<Vec<String>>,
}

impl<'a> Walker<'a, '_> {
    fn template(&mut self, template: &Template, outer: usize) {
        for (index, element) in template.elements.iter().enumerate() {
            let at = match template.mapping.get(index) {
                Some(place) => offset_of(self.source, place.0, place.1),
                None => outer,
            };
            self.element(element, at);
        }
    }

    fn element(&mut self, element: &TemplateElement, at: usize) {
        match element {
            TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper) => {
                self.expression(helper, at, false);
            }
            TemplateElement::HelperBlock(block) => self.block(block, at),
            TemplateElement::DecoratorExpression(_) | TemplateElement::DecoratorBlock(_) => self.fault(
                Fault::new(
                    at,
                    "decorators (`{{* ..}}`, `{{#*inline ..}}`) are not known here",
                )
                .hint("put the part into a file of its own below templates/partials/"),
            ),
            TemplateElement::PartialExpression(partial) | TemplateElement::PartialBlock(partial) => {
                self.partial(partial, at);
            }
            _ => {} // text and comments
        }
    }

    fn expression(&mut self, helper: &HelperTemplate, at: usize, asked: bool) {
        let plain = helper.params.is_empty() && helper.hash.is_empty();
        match &helper.name {
            Parameter::Subexpression(_) | Parameter::Literal(_) => self.parameter(&helper.name, at, asked),
            name => {
                let word = name.as_name().unwrap_or_default();
                if plain && !helpers::known(word) {
                    self.parameter(name, at, asked);
                } else if !helpers::known(word) {
                    self.unknown_helper(word, at);
                } else if plain {
                    self.fault(Fault::new(
                        self.find(at, word),
                        format!("the helper `{word}` needs a value"),
                    ));
                } else {
                    self.arguments(word, helper, at, asked);
                }
            }
        }
    }

    fn arguments(&mut self, word: &str, helper: &HelperTemplate, at: usize, asked: bool) {
        for (index, param) in helper.params.iter().enumerate() {
            let asked = asked && matches!(word, "and" | "or" | "not") || word == "default" && index == 0;
            self.parameter(param, at, asked);
        }
        for param in helper.hash.values() {
            self.parameter(param, at, false);
        }
        if word == "date"
            && let Some(Parameter::Literal(serde_json::Value::String(format))) = helper.params.get(1)
            && let Err(why) = helpers::strftime(format, jiff::Timestamp::UNIX_EPOCH)
        {
            self.fault(Fault::new(self.find(at, format), why).hint("for example \"%d.%m.%Y %H:%M\""));
        }
    }

    fn parameter(&mut self, parameter: &Parameter, at: usize, asked: bool) {
        match parameter {
            Parameter::Subexpression(inner) => {
                if let TemplateElement::Expression(helper) = inner.as_element() {
                    self.expression(helper, at, asked);
                }
            }
            Parameter::Name(_) | Parameter::Path(_) => {
                let raw = parameter.as_name().unwrap_or_default();
                if self.frames.iter().any(|frame| frame.names.contains_key(raw)) {
                    return; // what the name stands for was told where it was given
                }
                if let Place::At(path) = self.resolve(raw)
                    && !path.is_empty()
                {
                    let guarded = asked || self.guards.iter().any(|guard| path.starts_with(guard));
                    let offset = self.find(at, raw);
                    self.walked.uses.push(Found {
                        variable: Variable {
                            path,
                            offset,
                            guarded,
                        },
                        partial: self.inside.clone(),
                    });
                }
            }
            _ => {} // a literal
        }
    }

    fn block(&mut self, block: &HelperTemplate, at: usize) {
        let word = block.name.as_name().unwrap_or_default().to_owned();
        let guards = self.guards.len();
        match word.as_str() {
            "if" | "unless" => {
                for param in &block.params {
                    self.parameter(param, at, true);
                }
                let asked: Vec<Vec<String>> = block
                    .params
                    .first()
                    .map(|param| self.asked(param))
                    .unwrap_or_default();
                let (yes, no) = match word.as_str() {
                    "if" => (&block.template, &block.inverse),
                    _ => (&block.inverse, &block.template),
                };
                if let Some(no) = no {
                    self.template(no, at);
                }
                self.guards.extend(asked);
                if let Some(yes) = yes {
                    self.template(yes, at);
                }
                self.guards.truncate(guards);
            }
            "each" | "with" => {
                let with_else = word == "with" && block.inverse.is_some();
                for param in &block.params {
                    self.parameter(param, at, with_else);
                }
                let subject = match block.params.first() {
                    Some(param @ (Parameter::Name(_) | Parameter::Path(_))) => {
                        self.resolve(param.as_name().unwrap_or_default())
                    }
                    _ => Place::Free,
                };
                if let (true, Place::At(path)) = (with_else, &subject) {
                    self.guards.push(path.clone());
                }
                let mut frame = Frame::new(if word == "each" {
                    Place::Free
                } else {
                    subject.clone()
                });
                let mut name = |name: &Parameter, place: Place| {
                    if let Some(name) = name.as_name() {
                        frame.names.insert(name.to_owned(), place);
                    }
                };
                match &block.block_param {
                    Some(BlockParam::Single(one)) => {
                        name(one, if word == "each" { Place::Free } else { subject });
                    }
                    Some(BlockParam::Pair((one, two))) => {
                        name(one, if word == "each" { Place::Free } else { subject });
                        name(two, Place::Free);
                    }
                    _ => {}
                }
                self.frames.push(frame);
                if let Some(body) = &block.template {
                    self.template(body, at);
                }
                self.frames.pop();
                self.guards.truncate(guards);
                if let Some(inverse) = &block.inverse {
                    self.template(inverse, at);
                }
            }
            "raw" => {}
            other if helpers::known(other) => self.fault(
                Fault::new(
                    self.find(at, other),
                    format!("the helper `{other}` takes no block"),
                )
                .hint(format!("write `{{{{{other} ..}}}}`")),
            ),
            other => self.unknown_helper(other, at),
        }
    }

    /// The facts whose presence a test asks for.
    fn asked(&self, parameter: &Parameter) -> Vec<Vec<String>> {
        match parameter {
            Parameter::Name(_) | Parameter::Path(_) => {
                match self.resolve(parameter.as_name().unwrap_or_default()) {
                    Place::At(path) if !path.is_empty() => vec![path],
                    _ => Vec::new(),
                }
            }
            Parameter::Subexpression(inner) => match inner.as_element() {
                TemplateElement::Expression(helper)
                    if matches!(helper.name.as_name(), Some("and" | "or")) =>
                {
                    helper.params.iter().flat_map(|param| self.asked(param)).collect()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn partial(&mut self, partial: &DecoratorTemplate, at: usize) {
        let name = match &partial.name {
            Parameter::Name(name) => name.clone(),
            Parameter::Path(_) => partial.name.as_name().unwrap_or_default().to_owned(),
            _ => {
                self.fault(
                    Fault::new(at, "the name of a partial cannot be computed")
                        .hint("choose with `{{#if ..}}{{> one}}{{else}}{{> other}}{{/if}}`"),
                );
                return;
            }
        };
        for param in partial.params.iter().chain(partial.hash.values()) {
            self.parameter(param, at, false);
        }
        let mut frame = Frame::new(match partial.params.first() {
            None => self
                .frames
                .last()
                .map_or(Place::Free, |frame| frame.context.clone()),
            Some(param @ (Parameter::Name(_) | Parameter::Path(_))) => {
                self.resolve(param.as_name().unwrap_or_default())
            }
            Some(_) => Place::Free,
        });
        for (key, value) in &partial.hash {
            let place = match value {
                Parameter::Name(_) | Parameter::Path(_) => self.resolve(value.as_name().unwrap_or_default()),
                _ => Place::Free,
            };
            frame.names.insert(key.clone(), place);
        }
        self.frames.push(frame);
        if let Some(block) = &partial.template {
            self.template(block, at);
        }
        if name != "@partial-block" {
            let offset = self.find(at, &name);
            if self.inside.is_none() {
                self.walked.partials.push((name.clone(), offset));
            }
            if let Some((template, source)) = (self.partials)(&name) {
                let mut inner: Walker<'a, '_> = Walker {
                    partials: self.partials,
                    walked: std::mem::take(&mut self.walked),
                    source,
                    inside: Some(name),
                    frames: std::mem::take(&mut self.frames),
                    guards: std::mem::take(&mut self.guards),
                };
                inner.template(template, 0);
                self.walked = inner.walked;
                self.frames = inner.frames;
                self.guards = inner.guards;
            }
        }
        self.frames.pop();
    }

    /// What a path as written stands for here.
    fn resolve(&self, raw: &str) -> Place {
        let mut rest = raw;
        let mut up = 0usize;
        let mut root = false;
        if let Some(after) = rest.strip_prefix("@root") {
            root = true;
            rest = after.trim_start_matches(['/', '.']);
        } else if rest.starts_with('@') {
            return Place::Free;
        }
        while let Some(after) = rest.strip_prefix("..") {
            up += 1;
            rest = after.trim_start_matches('/');
        }
        rest = rest.strip_prefix("./").unwrap_or(rest);
        let steps = steps(rest);
        let from = |place: &Place, steps: &[String]| match place {
            Place::Free => Place::Free,
            Place::At(base) => Place::At(base.iter().chain(steps).cloned().collect()),
        };
        if root {
            return Place::At(steps);
        }
        if up == 0
            && let Some((first, others)) = steps.split_first()
            && let Some(place) = self.frames.iter().rev().find_map(|frame| frame.names.get(first))
        {
            return from(place, others);
        }
        match self
            .frames
            .len()
            .checked_sub(1 + up)
            .and_then(|at| self.frames.get(at))
        {
            Some(frame) => from(&frame.context, &steps),
            None => Place::Free,
        }
    }

    /// Where `word` stands at or behind `at`.
    fn find(&self, at: usize, word: &str) -> usize {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let tail = self.source.get(at..).unwrap_or_default();
        tail.match_indices(word)
            .find(|(index, _)| {
                !tail[..*index].ends_with(part) && !tail[*index + word.len()..].starts_with(part)
            })
            .map_or(at, |(index, _)| at + index)
    }

    fn unknown_helper(&mut self, word: &str, at: usize) {
        let offset = self.find(at, word);
        let fault = Fault::new(offset, format!("nobody knows a helper `{word}`"));
        let names = helpers::OURS.iter().chain(&helpers::LIBRARY).copied();
        let hint = match suggest::nearest(word, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "there are: {}",
                [&helpers::OURS[..], &helpers::LIBRARY[..]].concat().join(" ")
            ),
        };
        self.fault(fault.hint(hint));
    }

    fn fault(&mut self, fault: Fault) {
        self.walked.faults.push(FoundFault {
            fault,
            partial: self.inside.clone(),
        });
    }
}

/// Splits `a.b/[c d]` into its names; `this` is none.
fn steps(raw: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or((inner, "")),
            None => {
                let end = rest.find(['.', '/']).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if !step.is_empty() && step != "this" {
            steps.push(step.to_owned());
        }
        rest = after.trim_start_matches(['.', '/']);
    }
    steps
}

#[cfg(test)]
mod tests;
