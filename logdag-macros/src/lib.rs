//! The part of logdag's macros that parses format strings, for the messages of `log!`. Use it
//! through logdag; its interface may change in every release. It has no features.

mod format_string;

use std::collections::HashMap;

use format_string::{Piece, Which};
use proc_macro2::{Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Expr, LitStr, Token};

/// Takes the path of the crate logdag, a semicolon, and the arguments of `format_args!`. Expands to
/// an expression of a type that is a `Message`: that of `format_args!`, except for padded and
/// hexadecimal integers, which are slow there.
///
/// The type of an argument is inspected only if the format requires a number; the types of other
/// arguments need not be known yet.
#[doc(hidden)]
#[proc_macro]
pub fn message(tokens: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(tokens.into()).into()
}

fn expand(tokens: TokenStream) -> TokenStream {
    let mut tokens = tokens.into_iter();
    let (Some(logdag), Some(_)) = (tokens.next(), tokens.next()) else {
        return quote!(::core::compile_error!("expected the path of logdag and a message"));
    };
    let rest: TokenStream = tokens.collect();
    let parsed = Call::parse.parse2(rest.clone()).ok();
    // The compiler's own macro has the best errors.
    parsed.and_then(|call| call.message(&logdag)).unwrap_or_else(|| quote!(::core::format_args!(#rest)))
}

/// The arguments of `format_args!`.
struct Call {
    text: LitStr,
    arguments: Vec<(Option<Ident>, Expr)>,
}

impl Parse for Call {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let text = input.parse()?;
        let mut arguments = Vec::new();
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            let named = input.peek(syn::Ident) && input.peek2(Token![=]) && !input.peek2(Token![==]);
            let name = if named {
                let name = input.parse()?;
                input.parse::<Token![=]>()?;
                Some(name)
            } else {
                None
            };
            arguments.push((name, input.parse()?));
        }
        Ok(Self { text, arguments })
    }
}

/// The part between two integers: a format string with its arguments.
#[derive(Default)]
struct Between {
    format: String,
    arguments: Vec<TokenStream>,
    /// The format string without placeholders, with braces unescaped.
    text: String,
}

impl Between {
    /// Writes it, if there is anything, and clears it.
    fn end(&mut self, span: Span, target: &Ident, writes: &mut Vec<TokenStream>) {
        let Self { format, arguments, text } = std::mem::take(self);
        if format.is_empty() {
            return;
        }
        let (format, text) = (LitStr::new(&format, span), LitStr::new(&text, span));
        writes.push(match &arguments[..] {
            [] if text.value().bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
                quote!(#target.push_printable(#text);)
            }
            [] => quote!(#target.push(#text);),
            arguments => quote! {
                ::core::fmt::Write::write_fmt(#target, ::core::format_args!(#format, #(#arguments),*))?;
            },
        });
    }
}

impl Call {
    /// `None` if there is nothing to do for it, or it is invalid.
    fn message(&self, logdag: &TokenTree) -> Option<TokenStream> {
        let pieces = format_string::parse(&self.text.value())?;
        pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Hole(hole) if hole.number.is_some()))
            .then_some(())?;
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut values: Vec<TokenStream> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for (n, (name, value)) in self.arguments.iter().enumerate() {
            match name {
                Some(name) => names.insert(name.unraw().to_string(), n).is_none().then_some(())?,
                // Those without a name come first.
                None => names.is_empty().then_some(())?,
            }
            values.push(value.to_token_stream());
            spans.push(value.span());
        }
        let without_names = values.len() - names.len();
        let mut used = vec![false; values.len()];
        let mut next = 0;
        let mut writes = Vec::new();
        let mut between = Between::default();
        let span = Span::mixed_site();
        let (text, arguments) = (Ident::new("text", span), Ident::new("arguments", span));
        for piece in &pieces {
            let hole = match piece {
                Piece::Text(piece) => {
                    between.format.push_str(&piece.replace('{', "{{").replace('}', "}}"));
                    between.text.push_str(piece);
                    continue;
                }
                Piece::Hole(hole) => hole,
            };
            let which = match &hole.which {
                Which::Next => {
                    next += 1;
                    next - 1
                }
                Which::Place(place) => *place,
                Which::Name(name) => *names.entry(name.clone()).or_insert_with(|| {
                    values.push(Ident::new(name, self.text.span()).into_token_stream());
                    spans.push(self.text.span());
                    used.push(false);
                    values.len() - 1
                }),
            };
            // A place reaches neither what the text itself names, nor, without a warning, what has
            // a name.
            if !matches!(hole.which, Which::Name(_)) && which >= without_names {
                return None;
            }
            *used.get_mut(which)? = true;
            // An error in its type is reported at its place.
            let there = span.located_at(spans[which]);
            let (mut arguments, mut place) = (arguments.clone(), Literal::usize_unsuffixed(which));
            arguments.set_span(there);
            place.set_span(there);
            let argument = quote_spanned!(there=> *#arguments.#place);
            let format = format!("{{:{}}}", hole.spec);
            let Some(number) = &hole.number else {
                between.format.push_str(&format);
                between.arguments.push(argument);
                continue;
            };
            between.end(self.text.span(), &text, &mut writes);
            let format = LitStr::new(&format, self.text.span());
            let width = number.width;
            let digits = Ident::new(number.digits, Span::call_site());
            writes.push(quote! {
                (&#logdag::message::Argument(&#argument)).logdag_put(
                    #text,
                    #logdag::message::Digits::#digits,
                    #width,
                    |#text| ::core::fmt::Write::write_fmt(#text, ::core::format_args!(#format, #argument)),
                )?;
            });
        }
        between.end(self.text.span(), &text, &mut writes);
        if used.contains(&false) {
            return None;
        }
        let values = values.iter().zip(&spans).map(|(value, span)| quote_spanned!(*span=> &(#value)));
        Some(quote! {
            match (#(#values,)*) {
                #arguments => #logdag::message::Formatted::new(
                    move |#text: &mut #logdag::message::Text<'_>| -> ::core::fmt::Result {
                        use #logdag::message::Put as _;
                        #(#writes)*
                        ::core::result::Result::Ok(())
                    },
                ),
            }
        })
    }
}
