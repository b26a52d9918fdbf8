//! A text's statements: lines joined where a backslash ends them, with what a shell would do to them noticed and not done.

/// A line, or several that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its first line.
    pub(super) line: usize,
    pub(super) text: String,
    /// The first character that a shell would act upon: `$`, `;`, `>` …
    pub(super) special: Option<char>,
}

/// The statements of a text that say something, comments included.
pub(super) fn statements(text: &str) -> impl Iterator<Item = Statement> + '_ {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (at, first) = lines.next()?;
        let mut joined = String::new();
        let mut scanner = Scanner::default();
        let mut next = Some(first);
        while let Some(line) = next {
            next = None;
            if scanner.goes_on_after(line) {
                joined.push_str(line.strip_suffix('\\').unwrap_or(line));
                next = lines.next().map(|(_, line)| line);
            } else {
                joined.push_str(line);
            }
        }
        Some(Statement { line: at + 1, text: joined, special: scanner.special })
    })
    .filter(|statement| !statement.text.trim().is_empty())
}

/// Where in a statement of a shell one is.
#[derive(Default)]
struct Scanner {
    quote: Option<char>,
    in_word: bool,
    in_comment: bool,
    special: Option<char>,
}

impl Scanner {
    /// Whether the statement goes on after this line of it. A quote that is open at a line's end is not followed: one apostrophe
    /// in a text that is no statement would swallow all that comes.
    fn goes_on_after(&mut self, line: &str) -> bool {
        let mut escaped = false;
        for c in line.chars() {
            if self.in_comment {
                return false;
            }
            let is_escaped = std::mem::take(&mut escaped);
            match (self.quote, c) {
                _ if is_escaped => self.in_word = true,
                (Some(quote), c) if quote == c => self.quote = None,
                (Some('\''), _) => {}
                (_, '\\') => (escaped, self.in_word) = (true, true),
                (_, '$' | '`') => {
                    self.special.get_or_insert(c);
                    self.in_word = true;
                }
                (Some(_), _) => {}
                (None, '\'' | '"') => (self.quote, self.in_word) = (Some(c), true),
                (None, '#') if !self.in_word => self.in_comment = true,
                (None, ';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                    self.special.get_or_insert(c);
                    self.in_word = false;
                }
                (None, '{' | '}' | '*' | '?' | '[' | '~') => {
                    self.special.get_or_insert(c);
                    self.in_word = true;
                }
                (None, c) => self.in_word = !c.is_whitespace(),
            }
        }
        escaped
    }
}
