"""Mathematics: is this answer that number, word or formula?"""
