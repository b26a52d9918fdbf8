//! POSIX extended regular expressions, as nanny has them, in the words of the `regex` crate.
//!
//! They mean the same but for: `.` (a new line too), what stands in brackets (a backslash is itself there, and there are no sets of
//! sets), and escapes that only one of both knows.

/// The expression in the other words.
///
/// # Errors
/// What of it has no counterpart. Whether it is right as a whole, its reader says.
pub(super) fn translate(expression: &str) -> Result<String, String> {
    // Bytes, as in nanny's locale, unless that would forbid characters that are written.
    let mut translated = String::from(if expression.is_ascii() { "(?s-u)" } else { "(?s)" });
    let mut chars = expression.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None => return Err("a \\ at its end".to_owned()),
                // What GNU's library adds.
                Some(c @ ('w' | 'W' | 's' | 'S' | 'b' | 'B')) => translated.extend(['\\', c]),
                Some('<') => translated.push_str(r"\b{start}"),
                Some('>') => translated.push_str(r"\b{end}"),
                Some('`') => translated.push_str(r"\A"),
                Some('\'') => translated.push_str(r"\z"),
                Some(c) if c.is_ascii_digit() => return Err(format!("the back reference \\{c}")),
                Some(c) => escape(&mut translated, c),
            },
            '[' => brackets(&mut chars, &mut translated)?,
            c => translated.push(c),
        }
    }
    Ok(translated)
}

/// A character that stands for itself.
fn escape(translated: &mut String, c: char) {
    // `\<` and `\>` would mean something.
    if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
        translated.push('\\');
    }
    translated.push(c);
}

/// What stands between `[` and `]`. Each character but the range's `-` and named classes is escaped, so that none has a meaning.
fn brackets(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    translated: &mut String,
) -> Result<(), String> {
    const OPEN: &str = "a [ without its ]";
    translated.push('[');
    if chars.next_if_eq(&'^').is_some() {
        translated.push('^');
    }
    let mut first = true;
    loop {
        let c = chars.next().ok_or(OPEN)?;
        match c {
            ']' if !first => break,
            '[' if chars.peek() == Some(&':') => {
                chars.next();
                let mut name = String::new();
                loop {
                    match chars.next().ok_or("a [: without its :]")? {
                        ':' if chars.next_if_eq(&']').is_some() => break,
                        c if name.len() < 16 => name.push(c),
                        _ => return Err("an unknown class of characters".to_owned()),
                    }
                }
                translated.push_str(&format!("[:{name}:]"));
            }
            '[' if matches!(chars.peek(), Some('.' | '=')) => {
                return Err("a collating element".to_owned());
            }
            // First, or last: itself.
            '-' if !first && chars.peek() != Some(&']') => translated.push('-'),
            c => escape(translated, c),
        }
        first = false;
    }
    translated.push(']');
    Ok(())
}
