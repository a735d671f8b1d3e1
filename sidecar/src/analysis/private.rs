//! `#name` where no class around it declares that: the parser lets it pass, and QuickJS does not say where it stands.

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
    let mut search = Search { declared: Vec::new(), found: None, pace: Pace::new(token) };
    search.visit_function_body(body);
    search.pace.finish(search.found)
}

struct Search<'a, 't> {
    /// By the classes around.
    declared: Vec<&'a str>,
    found: Option<Mistake>,
    pace: Pace<'t>,
}

impl<'a> Visit<'a> for Search<'a, '_> {
    fn visit_class(&mut self, it: &Class<'a>) {
        let outer = self.declared.len();
        self.declared.extend(it.body.body.iter().filter_map(|element| match element.property_key()? {
            PropertyKey::PrivateIdentifier(it) => Some(it.name.as_str()),
            _ => None,
        }));
        walk::walk_class(self, it);
        self.declared.truncate(outer);
    }

    fn visit_private_identifier(&mut self, it: &PrivateIdentifier<'a>) {
        let name = it.name.as_str();
        if self.found.is_none() && !self.declared.contains(&name) {
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

impl Search<'_, '_> {
    fn goes_on(&mut self) -> bool {
        self.found.is_none() && self.pace.goes_on()
    }
}
