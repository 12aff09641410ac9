"""Builds chalicelib/lexicon.bin and rarity.json: `make repeats-model`. No Lambda runs any of it.

vocabulary  which words, and how often they are used
teachers    what two sentence models make of each word
questions   what the rest is learnt from: questions written for it, with repeats and near misses
table       the words' vectors, trained so that a question and its repeats come together
weights     how the measures of two texts make one verdict, and from where on
lexicon     the file
"""
