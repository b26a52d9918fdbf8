//! The words of one iptables command as options with values: what it says, not yet what that means.

/// What a command says; texts as written.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) table: Option<&'a str>,
    pub(super) command: Option<Command<'a>>,
    pub(super) protocol: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) destination: Option<&'a str>,
    pub(super) interface: Option<&'a str>,
    pub(super) ports: Option<&'a str>,
    /// `-m tcp` and the like.
    pub(super) protocol_matches: Vec<&'a str>,
    pub(super) multiport: bool,
    pub(super) target: Option<&'a str>,
    pub(super) mark: Option<&'a str>,
    /// The first thing that no mark rule can say. What comes behind it was read as well as it could be.
    pub(super) trouble: Option<String>,
}

/// What is to be done with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Append(&'a str),
    /// `-I`, `-D`, `-R`, `-C`: by its option.
    Other(&'static str, &'a str),
    /// Of a chain, or of all.
    Flush(Option<&'a str>),
    /// What is about no rule: chains made and deleted, policies, lists.
    NoRule,
}

/// The words that are still to be read.
struct Words<'a> {
    rest: &'a [String],
    /// The value in the word of its option: `--table=mangle`, `-ptcp`.
    attached: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// The next option, or a word that is none.
    fn option(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.attached = None;
        if word.starts_with("--") {
            if let Some((name, value)) = word.split_once('=') {
                self.attached = Some(value);
                return Some(name);
            }
        } else if word.starts_with('-')
            && let Some((name, value)) = word.split_at_checked(2)
            && !value.is_empty()
        {
            self.attached = Some(value);
            return Some(name);
        }
        Some(word)
    }

    fn value(&mut self) -> Option<&'a str> {
        self.attached.take().or_else(|| {
            let (word, rest) = self.rest.split_first()?;
            self.rest = rest;
            Some(word.as_str())
        })
    }

    /// A value that an option need not have.
    fn optional(&mut self) -> Option<&'a str> {
        let is_value =
            self.attached.is_some() || self.rest.first().is_some_and(|word| !word.starts_with(['-', '!']));
        if is_value { self.value() } else { None }
    }
}

impl<'a> Said<'a> {
    /// Reads the words behind the program's name.
    pub(super) fn read(words: &'a [String]) -> Self {
        let mut said = Self::default();
        let mut words = Words { rest: words, attached: None };
        while let Some(option) = words.option() {
            if let Err(trouble) = said.option(option, &mut words) {
                said.trouble.get_or_insert(trouble);
            }
        }
        said
    }

    fn option(&mut self, option: &'a str, words: &mut Words<'a>) -> Result<(), String> {
        let field = match option {
            "-t" | "--table" => &mut self.table,
            "-p" | "--protocol" | "--proto" => &mut self.protocol,
            "-s" | "--source" | "--src" => &mut self.source,
            "-d" | "--destination" | "--dst" => &mut self.destination,
            "-i" | "--in-interface" => &mut self.interface,
            "--dport" | "--dports" | "--destination-port" | "--destination-ports" => &mut self.ports,
            "-j" | "--jump" => &mut self.target,
            "--set-mark" | "--set-xmark" => &mut self.mark,
            _ => return self.other(option, words),
        };
        let value = words.value().ok_or_else(|| format!("has {option} without a value"))?;
        if value == "!" {
            return Err(negation());
        }
        if field.replace(value).is_some() {
            return Err(format!("has {option} a second time"));
        }
        Ok(())
    }

    /// Options that are no part of a mark rule's conditions, or can't be.
    fn other(&mut self, option: &str, words: &mut Words<'a>) -> Result<(), String> {
        match option {
            "-m" | "--match" => return self.match_(words.value()),
            // What a comment says may look like an option.
            "--comment" => drop(words.value()),
            "-c" | "--set-counters" => {
                let (_packets, _bytes) = (words.value(), words.value());
            }
            "-w" | "--wait" | "-W" | "--wait-interval" => drop(words.optional()),
            "-v" | "--verbose" | "-n" | "--numeric" => {}
            "!" => return Err(negation()),
            _ => {
                let Some(command) = command(option, words) else { return Err(unknown(option, words)) };
                if self.command.replace(command).is_some() {
                    return Err(format!("has {option} beside another command"));
                }
            }
        }
        Ok(())
    }

    fn match_(&mut self, name: Option<&'a str>) -> Result<(), String> {
        match name {
            None => return Err("has -m without a value".to_owned()),
            Some(name @ ("tcp" | "udp" | "sctp")) => self.protocol_matches.push(name),
            Some("multiport") => self.multiport = true,
            Some("comment") => {}
            Some(name) => {
                return Err(format!(
                    "has the match {name}, which no mark rule can have (allowed: tcp, udp, sctp, multiport, comment)"
                ));
            }
        }
        Ok(())
    }
}

fn negation() -> String {
    "has a negation (!), which no mark rule can have".to_owned()
}

fn unknown(option: &str, words: &mut Words<'_>) -> String {
    if !option.starts_with('-') {
        return format!("has {option:?} where an option should be");
    }
    while words.optional().is_some() {}
    format!("has {option}, which no mark rule can have")
}

/// The command of an option, with its chain.
fn command<'a>(option: &str, words: &mut Words<'a>) -> Option<Command<'a>> {
    // A chain, and perhaps a rule's number in it.
    let at_place = |name, words: &mut Words<'a>| {
        let chain = words.value().unwrap_or_default();
        let _number = words.optional();
        Command::Other(name, chain)
    };
    Some(match option {
        "-A" | "--append" => Command::Append(words.value().unwrap_or_default()),
        "-I" | "--insert" => at_place("-I", words),
        "-D" | "--delete" => at_place("-D", words),
        "-R" | "--replace" => at_place("-R", words),
        "-C" | "--check" => Command::Other("-C", words.value().unwrap_or_default()),
        "-F" | "--flush" => Command::Flush(words.optional()),
        "-N" | "--new-chain" | "-X" | "--delete-chain" | "-P" | "--policy" | "-E" | "--rename-chain"
        | "-Z" | "--zero" | "-L" | "--list" | "-S" | "--list-rules" | "-h" | "--help" | "-V"
        | "--version" => {
            while words.optional().is_some() {}
            Command::NoRule
        }
        _ => return None,
    })
}
