//! The extensions and methods that a client has named, as it has named them: one text with all names, and where each is. A
//! client may name tens of thousands, and an execution keeps them for as long as it lasts.

/// Where a name is in the text.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct Extension {
    name: Span,
    /// Its part of all methods.
    methods: Span,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    text: Box<str>,
    /// In the order of their names.
    extensions: Box<[Extension]>,
    methods: Box<[Span]>,
}

impl Registry {
    /// Of a name that comes twice the last one counts.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'a str, &'a [&'a str])>) -> Self {
        let mut named: Vec<(&str, &[&str])> = named.into_iter().collect();
        named.reverse();
        named.sort_by_key(|(name, _)| *name);
        named.dedup_by_key(|(name, _)| *name);
        let bytes =
            named.iter().flat_map(|(name, methods)| std::iter::once(name).chain(*methods)).map(|s| s.len()).sum();
        let mut text = String::with_capacity(bytes);
        let mut add = |name: &str| {
            let start = text.len() as u32;
            text.push_str(name);
            Span { start, end: text.len() as u32 }
        };
        let mut extensions = Vec::with_capacity(named.len());
        let mut methods = Vec::with_capacity(named.iter().map(|(_, methods)| methods.len()).sum());
        for (name, its) in named {
            let (name, start) = (add(name), methods.len() as u32);
            methods.extend(its.iter().map(|method| add(method)));
            extensions.push(Extension { name, methods: Span { start, end: methods.len() as u32 } });
        }
        Self { text: text.into(), extensions: extensions.into(), methods: methods.into() }
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(|extension| self.text(extension.name))
    }

    /// The methods of an extension, in the order in which they were named.
    pub fn methods(&self, name: &str) -> Option<impl Iterator<Item = &str>> {
        let at = self.extensions.binary_search_by_key(&name, |extension| self.text(extension.name)).ok()?;
        let Span { start, end } = self.extensions.get(at)?.methods;
        let its = self.methods.get(start as usize..end as usize).unwrap_or_default();
        Some(its.iter().map(|span| self.text(*span)))
    }

    /// Heap bytes.
    pub fn held_bytes(&self) -> u64 {
        (self.text.len() + size_of_val(&*self.extensions) + size_of_val(&*self.methods)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let registry = Registry::new([("k", &["user"][..]), ("a", &[]), ("", &["x", "", "x"]), ("k", &["b", "a"])]);
        assert_eq!(registry.names().collect::<Vec<_>>(), ["", "a", "k"]);
        let methods = |name| registry.methods(name).map(|methods| methods.collect::<Vec<_>>());
        assert_eq!(methods("k"), Some(vec!["b", "a"]));
        assert_eq!(methods("a"), Some(vec![]));
        assert_eq!(methods(""), Some(vec!["x", "", "x"]));
        assert_eq!((methods("b"), Registry::default().methods("a").map(Iterator::count)), (None, None));
    }
}
