//! The part of logdag's macros that looks into format strings: what `log!` makes of a message. Not to be used by itself.

mod format_string;

use std::collections::HashMap;

use format_string::{Piece, Which};
use proc_macro2::{Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Expr, LitStr, Token};

/// Takes the path of the crate logdag, a semicolon, and what `format_args!` takes. Becomes an expression of a type that
/// is a `Message`: text, numbers and what else is simple are written without the machinery of `format_args!`, whatever
/// is not goes through it.
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
    // What is wrong with it, the compiler's own macro says best.
    parsed.and_then(|call| call.message(&logdag)).unwrap_or_else(|| quote!(::core::format_args!(#rest)))
}

/// What `format_args!` takes.
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

impl Call {
    /// `None` where it is not simple, or not right.
    fn message(&self, logdag: &TokenTree) -> Option<TokenStream> {
        let pieces = format_string::parse(&self.text.value())?;
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut values: Vec<TokenStream> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for (n, (name, value)) in self.arguments.iter().enumerate() {
            match name {
                Some(name) => names.insert(name.to_string(), n).is_none().then_some(())?,
                // Those without a name come first.
                None => names.is_empty().then_some(())?,
            }
            values.push(value.to_token_stream());
            spans.push(value.span());
        }
        let mut used = vec![false; values.len()];
        let mut next = 0;
        let mut writes = Vec::new();
        let span = Span::mixed_site();
        let (text, arguments) = (Ident::new("text", span), Ident::new("arguments", span));
        for piece in &pieces {
            let hole = match piece {
                Piece::Text(piece) => {
                    writes.push(if piece.contains('\n') {
                        quote!(#text.push(#piece);)
                    } else {
                        quote!(#text.push_within_line(#piece);)
                    });
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
                Which::Name(name) => match names.get(name) {
                    Some(place) => *place,
                    None => {
                        let variable = syn::parse_str::<Ident>(name).ok()?;
                        let variable = Ident::new(&variable.to_string(), self.text.span());
                        names.insert(name.clone(), values.len());
                        values.push(variable.to_token_stream());
                        spans.push(self.text.span());
                        used.push(false);
                        values.len() - 1
                    }
                },
            };
            // A place does not reach what the text itself names.
            if !matches!(hole.which, Which::Name(_)) && which >= self.arguments.len() {
                return None;
            }
            *used.get_mut(which)? = true;
            // What is wrong with its type is told where it stands.
            let there = span.located_at(spans[which]);
            let (mut arguments, mut place) = (arguments.clone(), Literal::usize_unsuffixed(which));
            arguments.set_span(there);
            place.set_span(there);
            let argument = quote_spanned!(there=> #arguments.#place);
            let format = LitStr::new(&format!("{{:{}}}", hole.spec), self.text.span());
            let format =
                quote!(::core::fmt::Write::write_fmt(#text, ::core::format_args!(#format, #argument)));
            writes.push(match &hole.number {
                _ if hole.spec.is_empty() => quote! {
                    (&#logdag::message::Argument(#argument)).logdag_put(#text, |#text| #format)?;
                },
                Some(number) => {
                    let (width, zeros) = (number.width, number.zeros);
                    let digits = Ident::new(number.digits, Span::call_site());
                    quote! {
                        (&#logdag::message::Argument(#argument)).logdag_put_number(
                            #text,
                            #logdag::message::Spec::new(#logdag::message::Digits::#digits, #width, #zeros),
                            |#text| #format,
                        )?;
                    }
                }
                None => quote!(#format?;),
            });
        }
        if used.contains(&false) {
            return None;
        }
        if let [Piece::Text(piece)] = &pieces[..] {
            return Some(piece.to_token_stream());
        }
        if pieces.is_empty() {
            return Some(quote!(""));
        }
        let values = values.iter().zip(&spans).map(|(value, span)| quote_spanned!(*span=> &(#value)));
        Some(quote! {
            match (#(#values,)*) {
                #arguments => #logdag::message::Formatted::new(
                    move |#text: &mut #logdag::message::Text<'_>| -> ::core::fmt::Result {
                        #[allow(unused_imports)]
                        use #logdag::message::{PutAnything as _, PutNumber as _, PutText as _};
                        #(#writes)*
                        ::core::result::Result::Ok(())
                    },
                ),
            }
        })
    }
}
