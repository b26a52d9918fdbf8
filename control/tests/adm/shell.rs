//! As much of a shell as the captures use: `;`, `&&`, `|`, `>`, `<`, single quotes, `$?`, and the handful of programs
//! beside ipvsadm. Files are in memory.

use std::collections::HashMap;
use std::io::Cursor;

use xlvs_control::adm::execute::{Host, Session};
use xlvs_control::adm::render::proc::ProcFile;

use crate::memory::Memory;
use crate::names::FixedNames;

/// What a command left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub code: u8,
    pub out: String,
    pub err: String,
}

pub struct Shell {
    pub memory: Memory,
    names: FixedNames,
    files: HashMap<String, String>,
    code: u8,
}

/// A word, or an operator between words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Operator(&'static str),
}

fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    'tokens: while !rest.is_empty() {
        for operator in [";", "&&", "|", ">", "<"] {
            if let Some(behind) = rest.strip_prefix(operator) {
                tokens.push(Token::Operator(operator));
                rest = behind.trim_start();
                continue 'tokens;
            }
        }
        let (word, behind) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap(),
            None => rest.split_at(rest.find([' ', ';']).unwrap_or(rest.len())),
        };
        tokens.push(Token::Word(word.to_owned()));
        rest = behind.trim_start();
    }
    tokens
}

impl Shell {
    pub fn new() -> Self {
        Self { memory: Memory::new(), names: FixedNames::new(), files: HashMap::new(), code: 0 }
    }

    /// Runs a line; `None` if it has something that isn't known here.
    pub fn run(&mut self, line: &str, input: &str) -> Option<Outcome> {
        let mut all = Outcome::default();
        let mut tokens = tokens(line).into_iter().peekable();
        let mut skip = false;
        while tokens.peek().is_some() {
            let mut pipe = input.to_owned();
            loop {
                let mut words = Vec::new();
                let mut end = None;
                let mut target = None;
                while let Some(token) = tokens.next() {
                    match token {
                        Token::Word(word) => words.push(word),
                        Token::Operator(operator @ (">" | "<")) => {
                            let Some(Token::Word(file)) = tokens.next() else { return None };
                            match operator {
                                ">" => target = Some(file),
                                _ => pipe = self.files.get(&file)?.clone(),
                            }
                        }
                        Token::Operator(operator) => {
                            end = Some(operator);
                            break;
                        }
                    }
                }
                let outcome = if skip { Outcome::default() } else { self.program(&words, &pipe)? };
                if !skip {
                    self.code = outcome.code;
                }
                all.err += &outcome.err;
                pipe = outcome.out;
                if let Some(file) = target {
                    self.files.insert(file, std::mem::take(&mut pipe));
                }
                if end != Some("|") {
                    all.out += &pipe;
                    skip = end == Some("&&") && self.code != 0;
                    break;
                }
            }
        }
        all.code = self.code;
        Some(all)
    }

    fn program(&mut self, words: &[String], input: &str) -> Option<Outcome> {
        let (program, words) = words.split_first()?;
        let plain: Vec<&str> = words.iter().map(String::as_str).collect();
        let fine = |out: String| Some(Outcome { code: 0, out, err: String::new() });
        match (program.as_str(), plain.as_slice()) {
            ("ipvsadm", _) => Some(self.adm(words, input)),
            ("ipvsadm-save", _) => Some(self.adm(&[&["-S".to_owned()], words].concat(), input)),
            ("ipvsadm-restore", []) => {
                Some(self.session("ipvsadm-restore", input, |session| session.restore_anew()))
            }
            ("cat", [path]) => match path.strip_prefix("/proc/net/") {
                Some(name) => {
                    let file = ProcFile::ALL.into_iter().find(|file| file.name() == name)?;
                    fine(file.read(&mut self.memory).unwrap())
                }
                None => fine(self.files.get(*path)?.clone()),
            },
            ("grep", ["-v", "-e", pattern, file]) => {
                let kept = self.files.get(*file)?.lines().filter(|line| !line.contains(pattern));
                fine(kept.map(|line| format!("{line}\n")).collect())
            }
            ("grep", ["-c", pattern]) => {
                fine(format!("{}\n", input.lines().filter(|line| line.contains(pattern)).count()))
            }
            ("diff", [file, "-"]) => {
                let same = self.files.get(*file)? == input;
                Some(Outcome { code: u8::from(!same), ..Outcome::default() })
            }
            ("echo", ["$?"]) => fine(format!("{}\n", self.code)),
            ("echo", words) => fine(format!("{}\n", words.join(" "))),
            ("sleep", [_]) => fine(String::new()),
            _ => None,
        }
    }

    pub fn adm(&mut self, words: &[String], input: &str) -> Outcome {
        self.session("ipvsadm", input, |session| session.run(words))
    }

    /// A run that makes the remarks that ipvsadm doesn't, under the name `xlvs adm`.
    pub fn own(&mut self, words: &str, input: &str) -> Outcome {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        self.session("xlvs adm", input, |session| session.run(&words))
    }

    fn session(
        &mut self,
        program: &str,
        input: &str,
        run: impl FnOnce(Session<'_, Memory>) -> std::io::Result<u8>,
    ) -> Outcome {
        let host = Host { program, names: &self.names, remarks: program == "xlvs adm" };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut input = Cursor::new(input);
        let code = run(Session::new(&host, &mut self.memory, &mut input, &mut out, &mut err)).unwrap();
        Outcome { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }
}
