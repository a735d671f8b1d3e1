//! `#name` where no class around it declares that: the parser lets it pass, and QuickJS does not say where it stands.

use std::collections::HashMap;

use oxc_ast::ast::*;
use oxc_ast_visit::{Visit, walk};
use oxc_syntax::scope::ScopeFlags;

use super::pace::Pace;
use super::parse::{self, Mistake};
use crate::token::{StopCause, StopToken};

/// The first such name.
pub(super) fn undeclared(
    body: &FunctionBody<'_>,
    source: &str,
    token: &StopToken,
) -> Result<Option<Mistake>, StopCause> {
    if !source.contains('#') {
        return Ok(None);
    }
    let mut search = Search { declared: HashMap::new(), found: None, pace: Pace::new(token) };
    search.visit_function_body(body);
    search.pace.finish(search.found)
}

struct Search<'a, 't> {
    /// How many of the classes around declare it.
    declared: HashMap<&'a str, u32>,
    found: Option<Mistake>,
    pace: Pace<'t>,
}

impl<'a> Visit<'a> for Search<'a, '_> {
    fn visit_class(&mut self, it: &Class<'a>) {
        private_names(it).for_each(|name| *self.declared.entry(name).or_default() += 1);
        walk::walk_class(self, it);
        private_names(it).for_each(|name| *self.declared.entry(name).or_default() -= 1);
    }

    fn visit_private_identifier(&mut self, it: &PrivateIdentifier<'a>) {
        let name = it.name.as_str();
        if self.found.is_none() && self.declared.get(name).is_none_or(|classes| *classes == 0) {
            let message = format!(
                "no class around `#{name}` declares it: declare it as a field of the class, or leave out the `#`"
            );
            self.found = Some(Mistake { offset: parse::offset(it.span.start), message });
        }
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        if self.goes_on() {
            walk::walk_function(self, it, flags);
        }
    }
    fn visit_expression(&mut self, it: &Expression<'a>) {
        if self.goes_on() {
            walk::walk_expression(self, it);
        }
    }
    fn visit_statement(&mut self, it: &Statement<'a>) {
        if self.goes_on() {
            walk::walk_statement(self, it);
        }
    }
}

fn private_names<'a>(it: &Class<'a>) -> impl Iterator<Item = &'a str> {
    it.body.body.iter().filter_map(|element| match element.property_key()? {
        PropertyKey::PrivateIdentifier(it) => Some(it.name.as_str()),
        _ => None,
    })
}

impl Search<'_, '_> {
    fn goes_on(&mut self) -> bool {
        self.found.is_none() && self.pace.goes_on()
    }
}
