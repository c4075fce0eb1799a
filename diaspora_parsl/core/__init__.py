"""The pure core of the pool: stimuli in, actions out."""
