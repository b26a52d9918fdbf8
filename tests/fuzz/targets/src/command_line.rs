//! ipvsadm's command line over the daemon's registry: the input's first line is a command's words between blanks, the others
//! are its standard input, which `-R` reads as commands. Whatever they are: an exit code of ipvsadm's, a reason for a failure, and
//! afterwards a table that all lists show and that its own full save makes again, to the last word.

use xlvs_control::adm::execute::{Host, Session};
use xlvs_control::fuzzing::Control;

use crate::names::FixedNames;

const CONFIGURATION: &str = r#"
director.interface = "eth0"
[[service]]
address = "10.0.0.1"
port = 80
scheduler = "sh"
destination = [{ address = "10.0.1.1" }, { address = "10.0.1.2", weight = 3 }]
"#;

/// All lists that there are, and ipvsadm's own save.
const LISTS: [&str; 15] = [
    "-L",
    "-Ln",
    "-l -n --stats",
    "-Ln --rate",
    "-Ln --thresholds",
    "-Ln --persistent-conn",
    "-Ln --tun-info",
    "-Ln --nosort -X",
    "-Lc",
    "-Lcn",
    "-L --timeout",
    "-L --daemon",
    "-L --json",
    "-Lc --json",
    "-S -n",
];

/// What a command left.
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

struct Shell {
    control: Control,
    names: FixedNames,
}

impl Shell {
    fn new(configuration: &str) -> Self {
        Self { control: Control::new(configuration).unwrap(), names: FixedNames::new() }
    }

    fn run(&mut self, words: &[&str], mut input: &[u8], anew: bool) -> Outcome {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let host = Host { program: "ipvsadm", names: &self.names, remarks: false };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut kernel = self.control.ipvs();
        let session = Session::new(&host, &mut kernel, &mut input, &mut out, &mut err);
        let code = if anew { session.restore_anew() } else { session.run(&words) };
        let text = |bytes| String::from_utf8(bytes).expect("what is printed is text");
        Outcome { code: code.expect("memory can be read and written"), out: text(out), err: text(err) }
    }
}

/// Runs a command.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
    // As a shell's quotes give them, words can be empty.
    let words: Vec<&str> = line.split(' ').collect();
    let mut shell = Shell::new(CONFIGURATION);
    let Outcome { code, err, .. } = shell.run(&words, rest.as_bytes(), false);
    assert!([0, 1, 2, 255].contains(&code), "exit code {code}");
    // The lines of -R may have failed before the last.
    let is_lines = words.first().is_some_and(|word| word.starts_with("-R") || word.starts_with("--r"));
    assert!(is_lines || (code == 0) == err.is_empty(), "exit code {code}, and on standard error: {err:?}");
    for list in LISTS {
        let words: Vec<&str> = list.split(' ').collect();
        let Outcome { code, err, .. } = shell.run(&words, b"", false);
        assert!(code == 0 && err.is_empty(), "{list}: exit code {code}, {err:?}");
    }
    saved_text_makes_the_table(&mut shell);
}

fn saved_text_makes_the_table(shell: &mut Shell) {
    let saved = shell.run(&["-S", "--full"], b"", false).out;
    let mut other = Shell::new("director.interface = \"eth0\"");
    let Outcome { code, err, .. } = other.run(&[], saved.as_bytes(), true);
    assert!(code == 0 && err.is_empty(), "the saved text is refused: exit code {code}, {err:?}\n{saved}");
    let again = other.run(&["-S", "--full"], b"", false).out;
    assert_eq!(again, saved, "the saved text, restored and saved again");
}
