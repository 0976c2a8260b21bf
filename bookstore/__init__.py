"""The BookStore API: a catalogue of books, served."""

__version__ = "0.1.0"
