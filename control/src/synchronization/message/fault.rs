//! What can be wrong with a message, and with an entry of one. Each has a name for its counter.

/// Why a message is not looked at. Those that come first are looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum MessageFault {
    /// Shorter than its header.
    #[error("shorter than its header")]
    TooShort,
    /// The header's length is not the datagram's.
    #[error("the header's length is not the datagram's")]
    WrongSize,
    /// For directors with another sync id.
    #[error("for directors with another sync id")]
    OtherSyncId,
    /// Of another version than 1. What stands there in a message of version 0 is the first entry's protocol.
    #[error("of another version than 1")]
    OtherVersion,
    /// A byte of the header that has to be 0 is not.
    #[error("a byte of the header that has to be 0 is not")]
    ReservedNotZero,
}

impl MessageFault {
    /// All of them, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 5] =
        [Self::TooShort, Self::WrongSize, Self::OtherSyncId, Self::OtherVersion, Self::ReservedNotZero];

    /// The counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::WrongSize => "wrong_size",
            Self::OtherSyncId => "other_sync_id",
            Self::OtherVersion => "other_version",
            Self::ReservedNotZero => "reserved_not_zero",
        }
    }
}

/// Why an entry, or what stands in place of one, is not used. Those that come first are looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum EntryFault {
    /// The header counts more entries than there are.
    #[error("the header counts more entries than there are")]
    Missing,
    /// The message ends before the entry does.
    #[error("the message ends before the entry does")]
    CutOff,
    /// Of another version than 0.
    #[error("an entry of another version than 0")]
    OtherVersion,
    /// Its length is less than its family's entries have.
    #[error("its length is less than its family's entries have")]
    WrongLength,
    /// The entry ends before its option does.
    #[error("the entry ends before its option does")]
    OptionCutOff,
    /// An option is not as long as its type says, or empty.
    #[error("an option is not as long as its type says, or empty")]
    OptionLength,
    /// An option that isn't known and must not be read over.
    #[error("an option that is not known and must not be read over")]
    UnknownOption,
    /// No forwarding method has this number.
    #[error("no forwarding method has this number")]
    UnknownMethod,
    /// Of a protocol that no virtual service has.
    #[error("of a protocol that no virtual service has")]
    UnknownProtocol,
    /// A state that its protocol, or a template, can't be in.
    #[error("a state that its protocol, or a template, cannot be in")]
    ImpossibleState,
    /// Bytes after the last entry.
    #[error("bytes after the last entry")]
    Trailing,
}

impl EntryFault {
    /// All of them, in the order of their numbers (`as usize`).
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::CutOff,
        Self::OtherVersion,
        Self::WrongLength,
        Self::OptionCutOff,
        Self::OptionLength,
        Self::UnknownOption,
        Self::UnknownMethod,
        Self::UnknownProtocol,
        Self::ImpossibleState,
        Self::Trailing,
    ];

    /// The counter's name; no fault of messages has the same.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing_entries",
            Self::CutOff => "entry_cut_off",
            Self::OtherVersion => "other_entry_version",
            Self::WrongLength => "wrong_entry_length",
            Self::OptionCutOff => "option_cut_off",
            Self::OptionLength => "wrong_option_length",
            Self::UnknownOption => "unknown_option",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownProtocol => "unknown_protocol",
            Self::ImpossibleState => "impossible_state",
            Self::Trailing => "trailing_bytes",
        }
    }

    /// Whether entries after it are not used. Only what is well-formed is skipped alone.
    #[must_use]
    pub const fn ends_message(self) -> bool {
        !matches!(self, Self::UnknownProtocol | Self::ImpossibleState)
    }
}
